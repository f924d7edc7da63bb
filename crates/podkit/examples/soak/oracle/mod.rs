//! The parent: starts clients and kills them, kills containers, and judges what clients say.

mod clients;
mod hear;
mod verdict;

use std::{
    collections::HashMap,
    io::Write,
    path::PathBuf,
    process::{Child, ChildStdin},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use podkit::{Prefix, SessionKey};

use crate::{
    client,
    host::{self, Sample},
    model::{Session, Value},
    random::Random,
    say,
};

/// How much longer than its timeout an operation may take.
const MARGIN: Duration = Duration::from_secs(40);

/// How long a client that works may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// What takes longer than this may hang: its container is not killed.
const SLOW: Duration = Duration::from_secs(6);

/// How long clients have to gather, and to close everything.
const GATHERING: Duration = Duration::from_secs(90);

/// How long what is left may take to go.
const LEAVING: Duration = Duration::from_secs(30);

/// Time between two ends of a client, and between two quiet points.
const ROUND: Duration = Duration::from_secs(60);

/// Failures that are shown.
const SHOWN: usize = 100;

/// What is asked for on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) backend: String,
    pub(crate) time: Duration,
    pub(crate) sessions: usize,
    pub(crate) seed: u64,
}

/// Something that a client has begun.
#[derive(Debug)]
struct Operation {
    session: usize,
    begun: Instant,
    limit: Duration,
    kind: String,
    path: String,
    value: Option<Value>,
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Working,
    /// It was told to be quiet, or to finish.
    Gathering,
    Quiet,
    Dying,
    Done,
}

/// A client, in whatever process it is.
#[derive(Debug)]
struct Client {
    name: &'static str,
    first: usize,
    count: usize,
    generation: u64,
    process: Child,
    input: Option<ChildStdin>,
    state: State,
    heard: Instant,
    operations: HashMap<u64, Operation>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
enum Event {
    Line(usize, String),
    End(usize),
    Killed(usize, Instant, bool),
}

#[derive(Debug, Default)]
struct Counts {
    operations: u64,
    writes: u64,
    reads: u64,
    disturbed: u64,
    containers_killed: u64,
    clients_killed: u64,
    longest: HashMap<String, Duration>,
}

#[derive(Debug)]
struct Oracle {
    options: Options,
    prefix: String,
    place: PathBuf,
    random: Random,
    begun: Instant,
    sessions: Vec<Session>,
    containers: Vec<String>,
    clients: Vec<Client>,
    kills_under_way: usize,
    counts: Counts,
    failures: Vec<String>,
    send: Sender<Event>,
}

/// The whole test.
pub(crate) fn run(options: Options) -> Result<(), String> {
    let prefix = format!("soak{:06x}", std::process::id());
    let place = PathBuf::from("/var/tmp").join(&prefix);
    std::fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    say(&format!(
        "soak: {} on {} with {} sessions, seed {}, in {}",
        minutes(options.time),
        options.backend,
        options.sessions,
        options.seed,
        place.display()
    ));
    let before = host::snapshot(&options.backend, &place, &prefix);
    let (send, receive) = mpsc::channel();
    let mut oracle = Oracle::new(options, prefix, place, send)?;
    oracle.start_clients()?;
    oracle.work(&receive)?;
    oracle.finish(&receive)?;
    oracle.judge_samples();
    oracle.compare(&before);
    oracle.summary()
}

fn minutes(time: Duration) -> String {
    format!("{} min", time.as_secs() / 60)
}

impl Oracle {
    fn new(
        options: Options,
        prefix: String,
        place: PathBuf,
        send: Sender<Event>,
    ) -> Result<Self, String> {
        let name = |session| -> podkit::Result<String> {
            let key: SessionKey = client::key(session)?;
            Ok(key.container_name(&Prefix::new(prefix.clone())?))
        };
        let containers: podkit::Result<Vec<String>> = (0..options.sessions).map(name).collect();
        let new = |session| Session::new(client::has_workspace(session));
        Ok(Self {
            containers: containers.map_err(|error| error.to_string())?,
            sessions: (0..options.sessions).map(new).collect(),
            random: Random::new(options.seed, 0),
            options,
            prefix,
            place,
            begun: Instant::now(),
            clients: Vec::new(),
            kills_under_way: 0,
            counts: Counts::default(),
            failures: Vec::new(),
            send,
        })
    }

    fn fail(&mut self, what: String) {
        if self.failures.len() < SHOWN {
            let seconds = self.begun.elapsed().as_secs();
            say(&format!("soak: WRONG at {seconds} s: {what}"));
        }
        self.failures.push(what);
    }

    /// The test proper, up to the last quiet point.
    fn work(&mut self, receive: &Receiver<Event>) -> Result<(), String> {
        let mut report = Instant::now() + Duration::from_secs(10);
        let mut container = Instant::now() + Duration::from_secs(3);
        let mut quiet = Instant::now() + ROUND;
        let mut death = Instant::now() + ROUND + Duration::from_secs(5);
        let end = self.begun + self.options.time;
        while Instant::now() < end {
            self.next(receive)?;
            let now = Instant::now();
            if now >= report {
                report += Duration::from_secs(10);
                self.progress();
            }
            if now >= container {
                let most = 60_000 / self.options.sessions.max(1) as u64;
                let pause = 200 + self.random.below(most.max(400));
                container = now + Duration::from_millis(pause);
                self.kill_container();
            }
            if now >= quiet && now + Duration::from_secs(20) < end {
                self.quiet(receive)?;
                quiet += ROUND;
                let seconds = 2 + self.random.below(10);
                death = Instant::now() + Duration::from_secs(seconds);
            }
            if now >= death {
                death += ROUND;
                self.kill_client();
            }
        }
        self.quiet(receive)
    }

    /// Takes in one event, or none for a moment, and looks for silence.
    fn next(&mut self, receive: &Receiver<Event>) -> Result<(), String> {
        match receive.recv_timeout(Duration::from_millis(50)) {
            Ok(Event::Line(index, line)) => self.line(index, &line)?,
            Ok(Event::End(index)) => self.ended(index)?,
            Ok(Event::Killed(session, begun, done)) => {
                self.kills_under_way -= 1;
                self.counts.containers_killed += u64::from(done);
                if let Some(session) = self.sessions.get_mut(session) {
                    session.disturbed(begun, Instant::now());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("no events".to_owned()),
        }
        self.look_for_silence();
        Ok(())
    }

    /// Tells clients something, and waits until all of them have done it.
    fn gather(
        &mut self,
        receive: &Receiver<Event>,
        word: &str,
        there: State,
    ) -> Result<bool, String> {
        let begun = Instant::now();
        // No kill and no death reaches into what follows.
        while self.kills_under_way > 0 || self.clients.iter().any(|c| c.state == State::Dying) {
            self.next(receive)?;
        }
        for client in &mut self.clients {
            client.state = State::Gathering;
            if let Some(input) = &mut client.input {
                let _ = writeln!(input, "{word}");
            }
        }
        while self.clients.iter().any(|client| client.state != there) {
            self.next(receive)?;
            if begun.elapsed() > GATHERING + self.options.time / 100 {
                let late = self.clients.iter().filter(|client| client.state != there);
                let late: Vec<&str> = late.map(|client| client.name).collect();
                self.fail(format!("not {word} in time: {}", late.join(", ")));
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has everything rest, and looks at what the clients hold and what still runs.
    fn quiet(&mut self, receive: &Receiver<Event>) -> Result<(), String> {
        let begun = Instant::now();
        if self.gather(receive, "quiet", State::Quiet)? {
            let settled = Instant::now() + Duration::from_secs(2);
            while Instant::now() < settled {
                self.next(receive)?;
            }
            let running = host::commands(&format!("SOAK={}", self.prefix));
            for command in running {
                self.fail(format!(
                    "a command outlived its client or its time: {command}"
                ));
            }
            for client in &mut self.clients {
                if let Some(sample) = host::sample(client.process.id()) {
                    say(&format!(
                        "soak: {} client: {} descriptors, {} KiB (quiet after {:.1} s)",
                        client.name,
                        sample.descriptors,
                        sample.memory_kib,
                        begun.elapsed().as_secs_f64()
                    ));
                    client.samples.push(sample);
                }
            }
        }
        for client in &mut self.clients {
            (client.state, client.heard) = (State::Working, Instant::now());
            if let Some(input) = &mut client.input {
                let _ = writeln!(input, "go");
            }
        }
        Ok(())
    }

    /// Has every file read and every session closed.
    fn finish(&mut self, receive: &Receiver<Event>) -> Result<(), String> {
        self.gather(receive, "finish", State::Done)?;
        for client in &mut self.clients {
            client.input = None;
            let _ = client.process.kill();
            let _ = client.process.wait();
        }
        Ok(())
    }
}
