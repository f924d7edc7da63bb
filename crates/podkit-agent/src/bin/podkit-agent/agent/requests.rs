//! What clients ask for.

use alloc::string::String;

use podkit_agent::{
    Failure, FailureKind, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Reply, Request, compatible,
};

use super::{Agent, connection::Stream, exec::Owner};

impl Agent {
    /// Does what a client asks: `Err` when it breaks the protocol.
    pub(super) fn request(&mut self, id: u32, stream: u32, request: Request) -> Result<(), ()> {
        let connection = self.connections.get(&id).ok_or(())?;
        if let Request::Hello {
            version,
            version_min,
        } = request
        {
            return self.greet(id, stream, version, version_min);
        }
        if !connection.greeted {
            return Err(());
        }
        let whole = matches!(
            request,
            Request::Ping
                | Request::Status
                | Request::Touch
                | Request::SetClocks(_)
                | Request::Stop { .. }
        );
        if whole != (stream == 0) {
            return Err(());
        }
        match request {
            Request::Exec(_)
            | Request::File { .. }
            | Request::Spawn(_)
            | Request::Processes
            | Request::Process { .. }
            | Request::Port { .. } => self.begin(id, stream, request),
            _ if whole => {
                self.ask(id, &request);
                Ok(())
            }
            _ => self.go_on(id, stream, request),
        }
    }

    /// Passes data on to the stream that they are for, as [`request`](Self::request) does all else.
    pub(super) fn take_stdin(&mut self, id: u32, stream: u32, data: &[u8]) -> Result<(), ()> {
        let connection = self.connections.get(&id).ok_or(())?;
        if !connection.greeted || stream == 0 {
            return Err(());
        }
        match connection.streams.get(&stream).copied() {
            None => Ok(()),
            Some(Stream::File(file)) => self.take_file_input(file, data),
            Some(Stream::Exec(exec)) => {
                self.clocks.touch();
                self.take_input(exec, data)
            }
            Some(Stream::Process(process)) => {
                self.clocks.touch();
                let owner = Owner {
                    connection: id,
                    stream,
                };
                self.type_in(owner, process, data)
            }
        }
    }

    fn greet(&mut self, id: u32, stream: u32, version: u16, version_min: u16) -> Result<(), ()> {
        let connection = self.connections.get_mut(&id).ok_or(())?;
        if stream != 0 || connection.greeted {
            return Err(());
        }
        connection.greeted = compatible(version, version_min);
        let hello = Reply::Hello {
            version: PROTOCOL_VERSION,
            version_min: PROTOCOL_VERSION_MIN,
            boot_token: self.config.boot_token,
            kernel_tree_kill: self.config.unified.is_some(),
        };
        match self.closing_reason() {
            // In one piece, so that nobody takes the greeting of a stopping container for more.
            Some(reason) => self.reply_all(id, &[hello, Reply::Closing(reason)]),
            None => self.reply(id, 0, &hello),
        }
        Ok(())
    }

    fn ask(&mut self, id: u32, request: &Request) {
        let answer = match request {
            Request::Ping => Reply::Pong,
            Request::Status => Reply::Status(self.status()),
            Request::Touch => {
                self.clocks.touch();
                Reply::Done
            }
            Request::SetClocks(clocks) => {
                self.clocks.set(*clocks);
                Reply::Done
            }
            Request::Stop { grace_ms } => {
                return self.close(podkit_agent::StopReason::Requested, 0, *grace_ms);
            }
            _ => return,
        };
        self.reply(id, 0, &answer);
    }

    fn begin(&mut self, id: u32, stream: u32, request: Request) -> Result<(), ()> {
        let connection = self.connections.get(&id).ok_or(())?;
        if connection.streams.contains_key(&stream) {
            return Err(());
        }
        let begun = if self.closing.is_some() {
            Err(closing())
        } else {
            self.begin_call(id, stream, request)?
        };
        match begun {
            Ok(None) => {}
            Ok(Some(begun)) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.streams.insert(stream, begun);
                }
            }
            Err(failure) => self.reply(id, stream, &Reply::Failed(failure)),
        }
        Ok(())
    }

    /// Begins what has a stream: the stream, if it goes on.
    fn begin_call(
        &mut self,
        id: u32,
        stream: u32,
        request: Request,
    ) -> Result<Result<Option<Stream>, Failure>, ()> {
        Ok(match request {
            Request::Exec(spec) => {
                let begun = self.begin_exec(id, stream, &spec);
                begun.map(|exec| Some(Stream::Exec(exec)))
            }
            Request::File {
                call,
                path,
                user,
                timeout_ms,
            } => {
                self.clocks.touch();
                let begun = self.begin_file(id, stream, &call, &path, &user, timeout_ms);
                begun.map(|file| Some(Stream::File(file)))
            }
            Request::Port {
                call,
                port,
                timeout_ms,
            } => {
                let owner = Owner {
                    connection: id,
                    stream,
                };
                self.begin_port(owner, call, port, timeout_ms)
            }
            Request::Spawn(spec) => self.spawn(id, stream, spec).map(Some),
            Request::Processes => {
                self.tell_processes(id, stream);
                Ok(None)
            }
            Request::Process { id: process, call } => self.call_process(id, stream, &process, call),
            _ => return Err(()),
        })
    }

    /// A message for a stream that is open, or that has just ended without the client knowing.
    fn go_on(&mut self, id: u32, stream: u32, request: Request) -> Result<(), ()> {
        let connection = self.connections.get(&id).ok_or(())?;
        let Some(begun) = connection.streams.get(&stream).copied() else {
            return Ok(());
        };
        match (begun, request) {
            (Stream::Exec(exec), Request::StdinEnd) => {
                self.end_input(exec);
                Ok(())
            }
            (Stream::Exec(exec), Request::Credit(output, bytes)) => {
                self.grant(exec, output, bytes);
                Ok(())
            }
            (Stream::Exec(exec), Request::Signal(target, number)) => {
                self.clocks.touch();
                self.signal(exec, target, number);
                Ok(())
            }
            (Stream::Exec(exec), Request::Resize(size)) => {
                self.clocks.touch();
                self.resize(exec, size);
                Ok(())
            }
            (Stream::Exec(exec), Request::Cancel) => {
                self.cancel(exec);
                Ok(())
            }
            (Stream::Process(process), request) => self.go_on_with(id, stream, process, &request),
            (Stream::File(file), Request::StdinEnd) => {
                self.end_file_input(file);
                Ok(())
            }
            (Stream::File(file), Request::Credit(output, bytes)) => {
                self.grant_file(file, output, bytes);
                Ok(())
            }
            (Stream::File(file), Request::Cancel) => {
                let cancelled = failure(FailureKind::Cancelled, 0, "the call was given up");
                self.fail_file(file, cancelled);
                Ok(())
            }
            _ => Err(()),
        }
    }
}

/// Why nothing is begun any more.
pub(super) fn closing() -> Failure {
    failure(FailureKind::Closing, 0, "the container is stopping")
}

pub(super) fn failure(kind: FailureKind, errno: i32, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        errno,
        message: message.into(),
    }
}
