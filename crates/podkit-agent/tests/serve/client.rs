//! A client that speaks the protocol, and checks what it gets against it.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
};

use podkit_agent::{
    ExecSpec, ExecStatus, ExecUsage, Failure, FileCall, FrameBuffer, INITIAL_WINDOW_BYTES,
    MAX_DATA_BYTES, Output, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Reply, Request,
};

use crate::container::PATIENCE;

/// Replies that are read ahead: a client that takes none soon does not read any more.
const AHEAD: usize = 4;

/// How a client reaches the agent.
enum Way {
    /// By a process that the engine has started inside.
    Process(Child),
    /// By a socket that the agent has called.
    Socket(UnixStream),
}

/// One client's connection.
pub(crate) struct Client {
    way: Way,
    input: Option<Box<dyn Write + Send>>,
    replies: Receiver<(u32, Reply)>,
    /// Replies of other streams than the one that was waited for.
    early: VecDeque<(u32, Reply)>,
    last: u32,
    pub(crate) boot_token: [u8; 16],
}

/// All that came of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) pid: u32,
    pub(crate) status: ExecStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) truncated: [bool; 2],
    pub(crate) tree_survives: bool,
    pub(crate) usage: ExecUsage,
}

impl Ended {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.stderr.clone()).unwrap()
    }
}

pub(crate) fn words(argv: &[&str]) -> Vec<Vec<u8>> {
    argv.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// A command with nothing special about it.
pub(crate) fn spec(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: words(argv),
        ..ExecSpec::default()
    }
}

pub(crate) fn shell(text: &str) -> ExecSpec {
    spec(&["/bin/sh", "-c", text])
}

fn read_replies(mut source: impl Read, sender: &SyncSender<(u32, Reply)>) {
    let mut frames = FrameBuffer::new();
    let mut buffer = vec![0; MAX_DATA_BYTES];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        frames.push(&buffer[..count]);
        while let Some((kind, stream, payload)) = frames.next_frame().unwrap() {
            let reply = Reply::decode(kind, payload).unwrap();
            if sender.send((stream, reply)).is_err() {
                return;
            }
        }
    }
}

impl Client {
    pub(crate) fn new(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let input = Box::new(process.stdin.take().unwrap());
        let source = process.stdout.take().unwrap();
        Self::over(Way::Process(process), input, source)
    }

    /// A client on a socket that the agent has called.
    pub(crate) fn called(socket: UnixStream) -> Self {
        let (input, source) = (socket.try_clone().unwrap(), socket.try_clone().unwrap());
        Self::over(Way::Socket(socket), Box::new(input), source)
    }

    fn over(way: Way, input: Box<dyn Write + Send>, source: impl Read + Send + 'static) -> Self {
        let (sender, replies) = sync_channel(AHEAD);
        thread::spawn(move || read_replies(source, &sender));
        Self {
            way,
            input: Some(input),
            replies,
            early: VecDeque::new(),
            last: 0,
            boot_token: [0; 16],
        }
    }

    pub(crate) fn greet(&mut self) {
        self.send(
            0,
            &Request::Hello {
                version: PROTOCOL_VERSION,
                version_min: PROTOCOL_VERSION_MIN,
            },
        );
        let Some((
            0,
            Reply::Hello {
                boot_token,
                kernel_tree_kill,
                ..
            },
        )) = self.next()
        else {
            panic!("the greeting has no answer");
        };
        assert!(!kernel_tree_kill);
        self.boot_token = boot_token;
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // The other side may have hung up, which is seen in what comes.
        let _ = self.input.as_mut().unwrap().write_all(bytes);
    }

    pub(crate) fn send(&mut self, stream: u32, request: &Request) {
        let mut frame = Vec::new();
        request.encode(stream, &mut frame);
        self.send_bytes(&frame);
    }

    /// The next reply; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<(u32, Reply)> {
        match self.replies.recv_timeout(PATIENCE) {
            Ok(reply) => Some(reply),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no reply came"),
        }
    }

    /// The next reply on a stream; unasked pings are left out.
    pub(crate) fn next_of(&mut self, stream: u32) -> Option<Reply> {
        if let Some(at) = self.early.iter().position(|(of, _)| *of == stream) {
            return self.early.remove(at).map(|(_, reply)| reply);
        }
        loop {
            match self.next()? {
                (of, reply) if of == stream => return Some(reply),
                other => self.early.push_back(other),
            }
        }
    }

    /// Whether something came on a stream while others were listened to.
    pub(crate) fn has_come(&self, stream: u32) -> bool {
        self.early.iter().any(|(of, _)| *of == stream)
    }

    /// Waits until the other side hangs up.
    pub(crate) fn expect_end(&mut self) {
        while self.next().is_some() {}
    }

    /// Asks something of the connection as a whole.
    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.send(0, request);
        self.next_of(0).expect("an answer")
    }

    /// Begins a command and returns its stream.
    pub(crate) fn begin(&mut self, spec: ExecSpec) -> u32 {
        self.last += 1;
        self.send(self.last, &Request::Exec(spec));
        self.last
    }

    /// Begins a command and waits until it runs.
    pub(crate) fn start(&mut self, spec: ExecSpec) -> (u32, u32) {
        let stream = self.begin(spec);
        match self.next_of(stream) {
            Some(Reply::Started(pid)) => (stream, pid),
            other => panic!("the command did not start: {other:?}"),
        }
    }

    /// Begins a file call and returns its stream.
    pub(crate) fn file(&mut self, call: FileCall, path: &str, timeout_ms: Option<u64>) -> u32 {
        self.last += 1;
        let path = path.as_bytes().to_vec();
        self.send(
            self.last,
            &Request::File {
                call,
                path,
                user: Vec::new(),
                timeout_ms,
            },
        );
        self.last
    }

    /// Takes data of a stream until it has some, and grants as much again.
    pub(crate) fn data(&mut self, stream: u32) -> Vec<u8> {
        match self.next_of(stream) {
            Some(Reply::Data(output, data)) => {
                self.grant(stream, output, &data);
                data
            }
            other => panic!("no data came: {other:?}"),
        }
    }

    pub(crate) fn grant(&mut self, stream: u32, output: Output, data: &[u8]) {
        let count = u32::try_from(data.len()).unwrap();
        self.send(stream, &Request::Credit(output, count));
    }

    /// Takes all that a command says, up to its result.
    pub(crate) fn finish_started(&mut self, stream: u32, pid: u32) -> Ended {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next_of(stream) {
                Some(Reply::Data(output, data)) => {
                    assert!(!data.is_empty() && data.len() <= MAX_DATA_BYTES);
                    self.grant(stream, output, &data);
                    match output {
                        Output::Stdout => stdout.extend(data),
                        Output::Stderr => stderr.extend(data),
                    }
                }
                Some(Reply::Credit(_) | Reply::StdinClosed) => {}
                Some(Reply::Exited {
                    status,
                    stdout_truncated,
                    stderr_truncated,
                    tree_survives,
                    usage,
                }) => {
                    return Ended {
                        pid,
                        status,
                        stdout,
                        stderr,
                        truncated: [stdout_truncated, stderr_truncated],
                        tree_survives,
                        usage,
                    };
                }
                other => panic!("no result came: {other:?}"),
            }
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&mut self, spec: ExecSpec) -> Ended {
        let (stream, pid) = self.start(spec);
        self.finish_started(stream, pid)
    }

    /// Begins a command that cannot begin.
    pub(crate) fn fail(&mut self, spec: ExecSpec) -> Failure {
        let stream = self.begin(spec);
        match self.next_of(stream) {
            Some(Reply::Failed(failure)) => failure,
            other => panic!("the command did not fail: {other:?}"),
        }
    }

    /// Output that is there without any grant, of a command that writes without end.
    pub(crate) fn fill_window(&mut self, stream: u32) -> usize {
        let mut held = 0;
        while held < INITIAL_WINDOW_BYTES as usize {
            match self.next_of(stream) {
                Some(Reply::Data(Output::Stdout, data)) => held += data.len(),
                other => panic!("the output ended: {other:?}"),
            }
        }
        held
    }

    /// Hangs up.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
        if let Way::Socket(socket) = &self.way {
            // The reader holds it open otherwise; the agent may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hang_up();
        if let Way::Process(process) = &mut self.way {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
