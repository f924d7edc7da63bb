//! The parent: starts clients and kills them, kills containers, and judges what clients say.

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use podkit::{Prefix, SessionKey};

use crate::{
    CLIENT,
    client::{self, Order},
    host::{self, Sample},
    model::{Session, Value},
    number,
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

    /// One client that is killed every minute, and one that lives to the end: only that one can
    /// show that something grows.
    fn start_clients(&mut self) -> Result<(), String> {
        let steady = (self.options.sessions / 5).max(1);
        let mortal = self.options.sessions - steady;
        for (name, first, count) in [("mortal", 0, mortal), ("steady", mortal, steady)] {
            let (process, input) = self.spawn(self.clients.len(), first, count, 1)?;
            self.clients.push(Client {
                name,
                first,
                count,
                generation: 1,
                process,
                input,
                state: State::Working,
                heard: Instant::now(),
                operations: HashMap::new(),
                samples: Vec::new(),
            });
        }
        Ok(())
    }

    fn spawn(
        &self,
        index: usize,
        first: usize,
        count: usize,
        generation: u64,
    ) -> Result<(Child, Option<ChildStdin>), String> {
        let order = Order {
            place: self.place.clone(),
            backend: self.options.backend.clone(),
            prefix: self.prefix.clone(),
            first,
            count,
            generation,
            seed: self.options.seed,
        };
        let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let mut process = Command::new(program)
            .arg(CLIENT)
            .args(order.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a client: {error}"))?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let send = self.send.clone();
        std::thread::spawn(move || {
            let lines = output.map(|output| BufReader::new(output).lines());
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                if send.send(Event::Line(index, line)).is_err() {
                    return;
                }
            }
            let _ = send.send(Event::End(index));
        });
        Ok((process, input))
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

    fn look_for_silence(&mut self) {
        let mut found = Vec::new();
        for client in &mut self.clients {
            for operation in client.operations.values_mut() {
                let elapsed = operation.begun.elapsed();
                if elapsed > operation.limit + MARGIN && !operation.told {
                    operation.told = true;
                    found.push(format!(
                        "session {}: {} {} hangs for {elapsed:?}",
                        operation.session, operation.kind, operation.path
                    ));
                }
            }
            if client.state == State::Working && client.heard.elapsed() > SILENCE {
                client.heard = Instant::now();
                found.push(format!("the {} client is silent", client.name));
            }
        }
        for what in found {
            self.fail(what);
        }
    }

    fn kill_container(&mut self) {
        if self.kills_under_way > 3 {
            return;
        }
        let operations = || self.clients.iter().flat_map(|c| c.operations.values());
        // A kill would end what hangs, and hide it.
        let slow: BTreeSet<usize> = operations()
            .filter(|operation| operation.begun.elapsed() > SLOW)
            .map(|operation| operation.session)
            .collect();
        let busy: BTreeSet<usize> = operations().map(|operation| operation.session).collect();
        // Of what is busy rather more, so that calls are hit in the middle.
        let busy_only = self.random.below(3) > 0 && busy.len() > slow.len();
        let candidates: Vec<usize> = (0..self.containers.len())
            .filter(|session| !slow.contains(session))
            .filter(|session| !busy_only || busy.contains(session))
            .collect();
        let chosen = self.random.below(candidates.len() as u64);
        let chosen = usize::try_from(chosen).unwrap_or_default();
        let Some(&session) = candidates.get(chosen) else {
            return;
        };
        let Some(container) = self.containers.get(session).cloned() else {
            return;
        };
        let now = Instant::now();
        if let Some(session) = self.sessions.get_mut(session) {
            // Until the killer is back.
            session.disturbed(now, now + MARGIN);
        }
        self.kills_under_way += 1;
        let (backend, send) = (self.options.backend.clone(), self.send.clone());
        std::thread::spawn(move || {
            let done = host::kill_container(&backend, &container);
            let _ = send.send(Event::Killed(session, now, done));
        });
    }

    fn kill_client(&mut self) {
        if let Some(client) = self.clients.first_mut()
            && client.state == State::Working
        {
            client.state = State::Dying;
            let _ = client.process.kill();
            let _ = client.process.wait();
            self.counts.clients_killed += 1;
        }
    }

    /// A client is gone, and everything that it said was heard.
    fn ended(&mut self, index: usize) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        client.input = None;
        let status = client.process.wait();
        let abandoned: Vec<Operation> = client.operations.drain().map(|(_, o)| o).collect();
        let (state, name) = (client.state, client.name);
        for operation in abandoned.iter().filter(|o| o.kind == "close") {
            if let Some(session) = self.sessions.get_mut(operation.session) {
                session.close_abandoned(operation.begun);
            }
        }
        match state {
            State::Done => return Ok(()),
            State::Dying => {}
            State::Working | State::Gathering | State::Quiet => {
                self.fail(format!("the {name} client ended by itself: {status:?}"));
                if self.failures.len() > SHOWN {
                    return Err("too much is wrong".to_owned());
                }
            }
        }
        let Some(client) = self.clients.get(index) else {
            return Ok(());
        };
        let generation = client.generation + 1;
        let (process, input) = self.spawn(index, client.first, client.count, generation)?;
        if let Some(client) = self.clients.get_mut(index) {
            client.generation = generation;
            (client.process, client.input) = (process, input);
            (client.state, client.heard) = (State::Working, Instant::now());
        }
        Ok(())
    }

    fn line(&mut self, index: usize, line: &str) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        client.heard = Instant::now();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("begin", rest) => self.operation_begun(index, rest)?,
            ("end", rest) => self.operation_ended(index, rest)?,
            ("recovered", session) => {
                let session: usize = number("session", session)?;
                self.judge(session, "use", |session| session.opened(true));
            }
            ("hello", _) => {}
            ("quiet", _) => client.state = State::Quiet,
            ("bye", _) => client.state = State::Done,
            _ => return Err(format!("the {} client said `{line}`", client.name)),
        }
        Ok(())
    }

    fn judge(
        &mut self,
        session: usize,
        what: &str,
        judge: impl FnOnce(&mut Session) -> Result<(), String>,
    ) {
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        if let Err(wrong) = judge(found) {
            let container = self.containers.get(session).cloned().unwrap_or_default();
            self.fail(format!(
                "session {session} (`{container}`), {what}: {wrong}"
            ));
        }
    }

    fn operation_begun(&mut self, index: usize, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split(' ').collect();
        let [id, session, limit, kind, more @ ..] = words.as_slice() else {
            return Err(format!("a client said `begin {rest}`"));
        };
        let mut operation = Operation {
            session: number("session", session)?,
            begun: Instant::now(),
            limit: Duration::from_millis(number("limit", limit)?),
            kind: (*kind).to_owned(),
            path: more.first().copied().unwrap_or_default().to_owned(),
            value: None,
            told: false,
        };
        if let [_, sequence, hash] = more {
            operation.value = Some(Value {
                sequence: number("sequence", sequence)?,
                hash: number("hash", hash)?,
            });
        }
        let Some(session) = self.sessions.get_mut(operation.session) else {
            return Err(format!("there is no session {}", operation.session));
        };
        match (*kind, operation.value) {
            ("write", Some(value)) => session.write_begun(&operation.path, value),
            ("open", _) => session.open_begun(),
            ("close", _) => session.close_begun(),
            _ => {}
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.operations.insert(number("id", id)?, operation);
        }
        Ok(())
    }

    fn operation_ended(&mut self, index: usize, rest: &str) -> Result<(), String> {
        let mut words = rest.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (id, elapsed, ending, detail) = (word(), word(), word(), word());
        let (id, elapsed) = (number("id", id)?, number("time", elapsed)?);
        let elapsed = Duration::from_millis(elapsed);
        let client = self.clients.get_mut(index);
        let Some(operation) = client.and_then(|client| client.operations.remove(&id)) else {
            return Err(format!("a client ended what it had not begun: `{rest}`"));
        };
        self.counts.operations += 1;
        let over = elapsed.saturating_sub(operation.limit);
        let name = &operation.kind;
        // What ran out of time is judged by what came on top.
        let time = if name == "overrun" { over } else { elapsed };
        let longest = self.counts.longest.entry(name.clone()).or_default();
        *longest = time.max(*longest);
        let what = format!("{name} {} after {elapsed:?}", operation.path);
        if over > MARGIN && !operation.told {
            self.fail(format!("session {}: {what}: too late", operation.session));
        }
        let session = operation.session;
        match (ending, operation.kind.as_str()) {
            ("ok", "write") => {
                self.counts.writes += 1;
                if let (Some(found), Some(value)) =
                    (self.sessions.get_mut(session), operation.value)
                {
                    found.write_acknowledged(&operation.path, value);
                }
            }
            ("ok", "close") => {
                if let Some(found) = self.sessions.get_mut(session) {
                    found.closed();
                }
            }
            ("ok", _) => {}
            ("opened", _) => {
                let anew = matches!(detail, "created" | "recovered");
                self.judge(session, &what, |session| session.opened(anew));
            }
            ("read" | "missing", _) => {
                self.counts.reads += 1;
                let hash = detail.split(' ').next().and_then(|hash| hash.parse().ok());
                let what = format!("{what}, found `{detail}`");
                self.judge(session, &what, |session| {
                    session.read(&operation.path, hash)
                });
            }
            ("closed" | "error", _) => {
                let found = self.sessions.get(session);
                let explained = found.is_some_and(|s| s.was_disturbed_since(operation.begun));
                let kind = detail.split(' ').next().unwrap_or_default();
                let likely = matches!(kind, "" | "container_gone" | "agent_unreachable");
                self.counts.disturbed += 1;
                if !explained || !likely {
                    let cause = if explained {
                        ""
                    } else {
                        ", though nobody killed it"
                    };
                    self.judge(session, &what, |_| Err(format!("{ending} {detail}{cause}")));
                }
            }
            _ => self.judge(session, &what, |_| Err(format!("{ending} {detail}"))),
        }
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

    fn judge_samples(&mut self) {
        let mut found = Vec::new();
        for client in &self.clients {
            if let [first, .., last] = client.samples.as_slice()
                && first.descriptors != last.descriptors
            {
                found.push(format!(
                    "the {} client had {} descriptors at first, {} at last",
                    client.name, first.descriptors, last.descriptors
                ));
            }
            let later = client.samples.get(client.samples.len() / 2..);
            let memory = later.unwrap_or_default().iter().map(|s| s.memory_kib);
            let (least, most) = (memory.clone().min(), memory.max());
            if let (Some(least), Some(most)) = (least, most)
                && most * 95 > least * 105
            {
                found.push(format!(
                    "memory of the {} client goes from {least} to {most} KiB in the later half",
                    client.name
                ));
            }
        }
        for what in found {
            self.fail(what);
        }
    }

    /// Compares the host with what it was.
    fn compare(&mut self, before: &BTreeSet<String>) {
        let begun = Instant::now();
        let left = loop {
            let after = host::snapshot(&self.options.backend, &self.place, &self.prefix);
            let left: Vec<String> = after.difference(before).cloned().collect();
            if left.is_empty() || begun.elapsed() > LEAVING {
                break left;
            }
            std::thread::park_timeout(Duration::from_millis(500));
        };
        for line in left {
            self.fail(format!("left behind: {line}"));
        }
        if self.failures.is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.place)
        {
            self.fail(format!("{}: {error}", self.place.display()));
        }
    }

    fn progress(&self) {
        let counts = &self.counts;
        let under_way: usize = self.clients.iter().map(|c| c.operations.len()).sum();
        say(&format!(
            "soak: {:>4} s: {} operations ({} under way), {} writes, {} reads, {} disturbed, \
             {} containers and {} clients killed, {} wrong",
            self.begun.elapsed().as_secs(),
            counts.operations,
            under_way,
            counts.writes,
            counts.reads,
            counts.disturbed,
            counts.containers_killed,
            counts.clients_killed,
            self.failures.len()
        ));
    }

    fn summary(&self) -> Result<(), String> {
        self.progress();
        let mut longest: Vec<_> = self.counts.longest.iter().collect();
        longest.sort();
        for (name, time) in longest {
            say(&format!("soak: longest {name}: {time:?}"));
        }
        if self.failures.is_empty() {
            say("soak: nothing was wrong");
            return Ok(());
        }
        Err(format!(
            "{} things were wrong (seed {}); what is left of them is in {}",
            self.failures.len(),
            self.options.seed,
            self.place.display()
        ))
    }
}
