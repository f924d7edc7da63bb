//! What clients say, and what is wrong with it.

use std::time::{Duration, Instant};

use super::{MARGIN, Operation, Oracle, SILENCE, State};
use crate::{
    model::{Session, Value},
    number,
};

impl Oracle {
    pub(super) fn line(&mut self, index: usize, line: &str) -> Result<(), String> {
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

    pub(super) fn look_for_silence(&mut self) {
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
}
