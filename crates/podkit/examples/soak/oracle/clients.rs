//! Starting and killing: of clients, and of containers.

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    time::Instant,
};

use super::{Client, Event, MARGIN, Operation, Oracle, SHOWN, SLOW, State};
use crate::{CLIENT, client::Order, host};

impl Oracle {
    /// One client that is killed every minute, and one that lives to the end: only that one can
    /// show that something grows.
    pub(super) fn start_clients(&mut self) -> Result<(), String> {
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

    pub(super) fn kill_container(&mut self) {
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

    pub(super) fn kill_client(&mut self) {
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
    pub(super) fn ended(&mut self, index: usize) -> Result<(), String> {
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
}
