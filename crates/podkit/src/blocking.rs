//! The same for programs without async: one line per method over the async types, on a runtime of
//! its own.
//!
//! Every method fails with `Unsupported` when it is called from async code, where it would block
//! the runtime; use the async types there.
//!
//! # Examples
//! ```
//! use podkit::blocking::Podkit;
//!
//! let podkit = Podkit::connect("memory")?;
//! let session = podkit.session("bob", "123")?;
//! assert_eq!(session.exec(["echo", "hi"])?.stdout, b"hi\n");
//! session.close()?;
//! # Ok::<(), podkit::Error>(())
//! ```

use std::{
    future::{Future, IntoFuture},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    CloseReport, ContainerStats, DiskUsage, Error, ErrorKind, ExecOutput, ExecRequest, FileEntry,
    GcOptions, GcReport, LimitChange, LogChunk, OnConflict, Opened, ParentInfo, PodkitBuilder,
    ProcessInfo, Result, SessionInfo, SessionKey, SessionSpec, TransferReport,
};

/// A runtime with one thread, which also keeps connections alive between calls.
#[derive(Clone, Debug)]
struct Engine(Arc<Owned>);

#[derive(Debug)]
struct Owned(Option<Runtime>);

impl Engine {
    fn new() -> Result<Self> {
        let built = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("podkit")
            .enable_all()
            .build();
        let runtime = built.map_err(|error| {
            Error::new(
                ErrorKind::LimitExceeded,
                "the runtime's thread cannot be started",
            )
            .with_source(error)
        })?;
        Ok(Self(Arc::new(Owned(Some(runtime)))))
    }

    fn run<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if Handle::try_current().is_ok() {
            return Err(
                Error::unsupported("a blocking call was made from async code")
                    .with_hint("use `podkit::Podkit` there, without `blocking`"),
            );
        }
        match &self.0.0 {
            Some(runtime) => runtime.block_on(call),
            None => Err(Error::new(ErrorKind::Unavailable, "the runtime has ended")),
        }
    }
}

/// A runtime must not be waited for where it may be dropped: in async code too.
impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// [`crate::Podkit`], blocking. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Podkit {
    engine: Engine,
    inner: crate::Podkit,
}

/// [`crate::Session`], blocking. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {
    engine: Engine,
    inner: crate::Session,
}

/// [`crate::Process`], blocking.
#[derive(Clone, Debug)]
pub struct Process {
    engine: Engine,
    inner: crate::Process,
}

/// [`crate::Files`], blocking.
#[derive(Clone, Debug)]
pub struct Files {
    engine: Engine,
    inner: crate::Files,
}

#[expect(clippy::missing_errors_doc, reason = "the async methods say it")]
impl Podkit {
    /// See [`crate::Podkit::connect`].
    pub fn connect(name: &str) -> Result<Self> {
        Self::build(crate::Podkit::builder().backend(name))
    }

    /// See [`PodkitBuilder::build`].
    pub fn build(builder: PodkitBuilder) -> Result<Self> {
        let engine = Engine::new()?;
        let inner = engine.run(builder.build())?;
        Ok(Self { engine, inner })
    }

    /// See [`crate::Podkit::session`].
    pub fn session(&self, user: impl Into<String>, session: impl Into<String>) -> Result<Session> {
        self.open(
            &SessionKey::new(user, session)?,
            SessionSpec::new(),
            OnConflict::Fail,
        )
    }

    /// See [`crate::OpenSession`].
    pub fn open(
        &self,
        key: &SessionKey,
        spec: SessionSpec,
        on_conflict: OnConflict,
    ) -> Result<Session> {
        let open = self.inner.open(key).spec(spec).on_conflict(on_conflict);
        let inner = self.engine.run(open.into_future())?;
        Ok(Session {
            engine: self.engine.clone(),
            inner,
        })
    }

    /// See [`crate::Podkit::list`].
    pub fn list(&self) -> Result<Vec<SessionInfo>> {
        self.engine.run(self.inner.list().into_future())
    }

    /// See [`crate::ListSessions::user`].
    pub fn list_user(&self, user: impl Into<String>) -> Result<Vec<SessionInfo>> {
        self.engine.run(self.inner.list().user(user).into_future())
    }

    /// See [`crate::Podkit::inspect`].
    pub fn inspect(&self, key: &SessionKey) -> Result<SessionInfo> {
        self.engine.run(self.inner.inspect(key))
    }

    /// See [`crate::Podkit::stop`].
    pub fn stop(&self, key: &SessionKey, grace: Duration) -> Result<()> {
        self.engine.run(self.inner.stop(key, grace))
    }

    /// See [`crate::Podkit::run_once`].
    pub fn run_once(
        &self,
        spec: impl Into<SessionSpec>,
        once: crate::RunOnce,
    ) -> Result<ExecOutput> {
        self.engine.run(self.inner.run_once(spec, once))
    }

    /// See [`crate::Podkit::close`].
    pub fn close(&self, key: &SessionKey) -> Result<CloseReport> {
        self.engine.run(self.inner.close(key))
    }

    /// See [`crate::Podkit::parent`].
    pub fn parent(&self) -> Result<Option<ParentInfo>> {
        self.engine.run(self.inner.parent())
    }

    /// See [`crate::Podkit::gc`].
    pub fn gc(&self, options: GcOptions) -> Result<GcReport> {
        self.engine.run(self.inner.gc(options))
    }

    /// See [`crate::Podkit::scoped`].
    pub fn scoped<T>(
        &self,
        spec: impl Into<SessionSpec>,
        body: impl FnOnce(&Session) -> Result<T>,
    ) -> Result<T> {
        // The body blocks; it runs outside of the runtime, between an opening and a closing.
        let key = crate::session::throw_away_key()?;
        let spec = crate::session::throw_away_spec(spec.into());
        let _closing = Closing {
            podkit: self,
            key: &key,
        };
        let session = self.open(&key, spec, OnConflict::Fail)?;
        let value = body(&session)?;
        match self.close(&key)?.failed.into_iter().next() {
            None => Ok(value),
            Some(error) => Err(error),
        }
    }

    /// See [`crate::Podkit::backend_name`].
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.inner.backend_name()
    }

    /// See [`crate::Podkit::shutdown`].
    pub fn shutdown(&self) -> Result<()> {
        self.engine.run(async {
            self.inner.shutdown().await;
            Ok(())
        })
    }

    /// The async one, for what has no blocking method.
    #[must_use]
    pub fn inner(&self) -> &crate::Podkit {
        &self.inner
    }
}

/// Closes a throw-away session also when its body fails or panics.
struct Closing<'a> {
    podkit: &'a Podkit,
    key: &'a SessionKey,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.podkit.close(self.key) {
            tracing::error!(%error, "a throw-away session could not be closed");
        }
    }
}

#[expect(clippy::missing_errors_doc, reason = "the async methods say it")]
impl Session {
    /// See [`crate::Session::key`].
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        self.inner.key()
    }

    /// See [`crate::Session::opened`].
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.inner.opened()
    }

    /// See [`crate::Session::exec`].
    pub fn exec(&self, argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Result<ExecOutput> {
        self.execute(ExecRequest::new(argv))
    }

    /// See [`crate::Session::shell`].
    pub fn shell(&self, text: impl Into<Vec<u8>>) -> Result<ExecOutput> {
        self.execute(ExecRequest::shell(text))
    }

    /// See [`crate::Session::execute`].
    pub fn execute(&self, request: ExecRequest) -> Result<ExecOutput> {
        self.run(self.inner.execute(request))
    }

    /// Runs what [`crate::Session::exec`] gives, with its options set.
    pub fn run(&self, command: crate::Exec) -> Result<ExecOutput> {
        self.engine.run(command.into_future())
    }

    /// See [`crate::Session::files`].
    #[must_use]
    pub fn files(&self) -> Files {
        Files {
            engine: self.engine.clone(),
            inner: self.inner.files(),
        }
    }

    /// Begins what [`crate::Session::spawn`] gives, with its options set.
    pub fn spawn(&self, process: crate::Spawn) -> Result<Process> {
        let inner = self.engine.run(process.into_future())?;
        Ok(Process {
            engine: self.engine.clone(),
            inner,
        })
    }

    /// See [`crate::Session::process`].
    pub fn process(&self, id: impl Into<String>) -> Process {
        Process {
            engine: self.engine.clone(),
            inner: self.inner.process(id),
        }
    }

    /// See [`crate::Session::processes`].
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.engine.run(self.inner.processes())
    }

    /// See [`crate::Session::info`].
    pub fn info(&self) -> Result<SessionInfo> {
        self.engine.run(self.inner.info())
    }

    /// See [`crate::Session::touch`].
    pub fn touch(&self) -> Result<()> {
        self.engine.run(self.inner.touch())
    }

    /// See [`crate::Session::stats`].
    pub fn stats(&self) -> Result<ContainerStats> {
        self.engine.run(self.inner.stats())
    }

    /// See [`crate::Session::set_limits`].
    pub fn set_limits(&self, change: LimitChange) -> Result<()> {
        self.engine.run(self.inner.set_limits(change))
    }

    /// See [`crate::Session::pause`].
    pub fn pause(&self) -> Result<()> {
        self.engine.run(self.inner.pause())
    }

    /// See [`crate::Session::resume`].
    pub fn resume(&self) -> Result<()> {
        self.engine.run(self.inner.resume())
    }

    /// See [`crate::Session::url`].
    pub fn url(&self, port: u16) -> Result<String> {
        self.engine.run(self.inner.url(port))
    }

    /// See [`crate::Session::wait_for_port`].
    pub fn wait_for_port(&self, port: u16, limit: Duration) -> Result<()> {
        self.engine.run(self.inner.wait_for_port(port, limit))
    }

    /// See [`crate::Session::stop`].
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.engine.run(self.inner.stop(grace))
    }

    /// See [`crate::Session::close`].
    pub fn close(&self) -> Result<CloseReport> {
        self.engine.run(self.inner.close())
    }

    /// The async one, for what has no blocking method.
    #[must_use]
    pub fn inner(&self) -> &crate::Session {
        &self.inner
    }
}

#[expect(clippy::missing_errors_doc, reason = "the async methods say it")]
impl Process {
    /// See [`crate::Process::info`].
    pub fn info(&self) -> Result<ProcessInfo> {
        self.engine.run(self.inner.info())
    }

    /// See [`crate::Process::wait`].
    pub fn wait(&self) -> Result<ProcessInfo> {
        self.engine.run(self.inner.wait())
    }

    /// See [`crate::Process::signal`].
    pub fn signal(&self, number: i32) -> Result<()> {
        self.engine.run(self.inner.signal(number))
    }

    /// See [`crate::Process::stop`].
    pub fn stop(&self, grace: Duration) -> Result<ProcessInfo> {
        self.engine.run(self.inner.stop(grace))
    }

    /// See [`crate::Process::set_keep_alive`].
    pub fn set_keep_alive(&self, keep: bool) -> Result<()> {
        self.engine.run(self.inner.set_keep_alive(keep))
    }

    /// See [`crate::Process::forget`].
    pub fn forget(&self) -> Result<()> {
        self.engine.run(self.inner.forget())
    }

    /// See [`crate::Process::wait_for_log`].
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<String> {
        self.engine.run(self.inner.wait_for_log(text, limit))
    }

    /// Reads what [`crate::Process::logs`] gives, with its options set.
    pub fn read(&self, logs: crate::Logs) -> Result<Vec<LogChunk>> {
        self.engine.run(logs.into_future())
    }

    /// The async one, for what has no blocking method.
    #[must_use]
    pub fn inner(&self) -> &crate::Process {
        &self.inner
    }
}

#[expect(clippy::missing_errors_doc, reason = "the async methods say it")]
impl Files {
    /// See [`crate::Files::read`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.engine.run(self.inner.read(path))
    }

    /// See [`crate::Files::write`].
    pub fn write(&self, path: &str, bytes: impl Into<bytes::Bytes>) -> Result<()> {
        self.engine.run(self.inner.write(path, bytes))
    }

    /// See [`crate::Files::append`].
    pub fn append(&self, path: &str, bytes: impl Into<bytes::Bytes>) -> Result<()> {
        self.engine.run(self.inner.append(path, bytes))
    }

    /// See [`crate::Files::list`].
    pub fn list(&self, path: &str) -> Result<Vec<FileEntry>> {
        self.engine.run(self.inner.list(path))
    }

    /// See [`crate::Files::stat`].
    pub fn stat(&self, path: &str) -> Result<FileEntry> {
        self.engine.run(self.inner.stat(path))
    }

    /// See [`crate::Files::exists`].
    pub fn exists(&self, path: &str) -> Result<bool> {
        self.engine.run(self.inner.exists(path))
    }

    /// See [`crate::Files::make_dir`].
    pub fn make_dir(&self, path: &str) -> Result<()> {
        self.engine.run(self.inner.make_dir(path))
    }

    /// See [`crate::Files::make_dir_all`].
    pub fn make_dir_all(&self, path: &str) -> Result<()> {
        self.engine.run(self.inner.make_dir_all(path))
    }

    /// See [`crate::Files::rename`].
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.engine.run(self.inner.rename(from, to))
    }

    /// See [`crate::Files::remove`].
    pub fn remove(&self, path: &str) -> Result<()> {
        self.engine.run(self.inner.remove(path))
    }

    /// See [`crate::Files::upload`].
    pub fn upload(&self, from: impl AsRef<Path>, to: &str) -> Result<TransferReport> {
        self.engine.run(self.inner.upload(from, to))
    }

    /// See [`crate::Files::download`].
    pub fn download(&self, from: &str, to: impl AsRef<Path>) -> Result<TransferReport> {
        self.engine.run(self.inner.download(from, to))
    }

    /// See [`crate::Files::disk_usage`].
    pub fn disk_usage(&self, path: &str) -> Result<DiskUsage> {
        self.engine.run(self.inner.disk_usage(path))
    }

    /// The async ones, for what has no blocking method.
    #[must_use]
    pub const fn inner(&self) -> &crate::Files {
        &self.inner
    }

    /// See [`crate::Files::remove_all`].
    pub fn remove_all(&self, path: &str) -> Result<()> {
        self.engine.run(self.inner.remove_all(path))
    }
}
