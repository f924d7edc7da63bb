//! What every case works with: a podkit of its own on the target, and short ways to use it.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::Target;
use crate::{
    Deadlines, ErrorKind, ExecOutput, GcOptions, Isolation, Podkit, Prefix, Result, Session,
    SessionKey, SessionSpec, backend::BackendRef,
};

/// How long a condition may take to come true.
pub(super) const BOUND: Duration = Duration::from_secs(10);

/// A case's own corner of the target.
#[derive(Clone, Debug)]
pub(super) struct Lab(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    podkit: Podkit,
    prefix: Prefix,
    directory: PathBuf,
}

impl Lab {
    pub(super) async fn new(target: &Target, case: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = Prefix::new(format!("t{:x}-{number:x}", std::process::id())).unwrap();
        let directory = target.directory.join(format!("{case}-{prefix}"));
        std::fs::create_dir_all(&directory).unwrap();
        let podkit = podkit_on(target, &prefix).await;
        Self(Arc::new(Inner {
            target: target.clone(),
            podkit,
            prefix,
            directory,
        }))
    }

    /// The case's own podkit.
    pub(super) fn podkit(&self) -> &Podkit {
        &self.0.podkit
    }

    /// Another podkit with the same prefix on the same engine, which knows nothing of the first:
    /// what another process would have.
    pub(super) async fn stranger(&self) -> Podkit {
        podkit_on(&self.0.target, &self.0.prefix).await
    }

    /// A podkit of the same prefix, to be put together further.
    pub(super) fn builder(&self) -> crate::PodkitBuilder {
        Podkit::builder()
            .engine(self.backend())
            .prefix(self.0.prefix.clone())
            .default_spec(self.0.target.default_spec())
    }

    /// A podkit of the same prefix, on a backend around the target's, with its own deadlines.
    pub(super) async fn podkit_with(&self, backend: BackendRef, deadlines: Deadlines) -> Podkit {
        Podkit::builder()
            .engine(backend)
            .prefix(self.0.prefix.clone())
            .default_spec(self.0.target.default_spec())
            .deadlines(deadlines)
            .build()
            .await
            .unwrap()
    }

    pub(super) fn backend(&self) -> BackendRef {
        Arc::clone(&self.0.target.backend)
    }

    pub(super) fn prefix(&self) -> &Prefix {
        &self.0.prefix
    }

    /// What a session here is like that says nothing else.
    pub(super) fn default_spec(&self) -> SessionSpec {
        self.0.target.default_spec()
    }

    /// Whether real programs run.
    pub(super) fn is_real(&self) -> bool {
        self.0.target.real
    }

    /// Whether a container has the ids 0 alone, of user and group, and so nobody to become.
    pub(super) fn has_one_id(&self) -> bool {
        self.podkit().capabilities().isolation == Some(Isolation::CallerUid)
    }

    /// A directory on the host for this case alone.
    pub(super) fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Where the attack programs are.
    pub(super) fn programs(&self) -> &Path {
        self.0
            .target
            .programs
            .as_deref()
            .expect("the target has the attack programs")
    }

    /// Opens the session `name` of user `u` with defaults.
    pub(super) async fn open(&self, name: &str) -> Session {
        self.open_with(name, SessionSpec::new()).await
    }

    pub(super) async fn open_with(&self, name: &str, spec: SessionSpec) -> Session {
        self.0.podkit.session("u", name).spec(spec).await.unwrap()
    }

    /// Removes every container of this prefix, and the directory; returns what is left.
    pub(super) async fn clean(&self) -> Vec<String> {
        let mut left = Vec::new();
        let podkit = &self.0.podkit;
        // Where a test failed, what it had begun may still come.
        for _ in 0..3 {
            for info in &podkit.list().await.unwrap_or_default() {
                if let Err(error) = podkit.close(&info.key).await {
                    left.push(format!("{}: {error:?}", info.key));
                }
            }
        }
        match podkit.list().await {
            Ok(infos) => left.extend(infos.iter().map(|info| info.key.to_string())),
            Err(error) => left.push(format!("{error:?}")),
        }
        podkit.shutdown().await;
        let _ = std::fs::remove_dir_all(&self.0.directory);
        left
    }
}

async fn podkit_on(target: &Target, prefix: &Prefix) -> Podkit {
    Podkit::builder()
        .engine(Arc::clone(&target.backend))
        .prefix(prefix.clone())
        .default_spec(target.default_spec())
        .build()
        .await
        .unwrap()
}

/// The key of session `name` of user `u`.
pub(super) fn key(name: &str) -> SessionKey {
    SessionKey::new("u", name).unwrap()
}

/// Runs a shell text, whatever its end.
pub(super) async fn shell(session: &Session, text: &str) -> ExecOutput {
    session.shell(text).await.unwrap()
}

/// Runs a shell text that must exit with 0, and returns its standard output.
pub(super) async fn text(session: &Session, script: &str) -> String {
    let output = shell(session, script).await;
    assert!(
        output.outcome.is_success(),
        "`{script}` {}: {}{}",
        output.outcome,
        output.stdout_text(),
        output.stderr_text()
    );
    output.stdout_text()
}

/// Asserts the kind of an error and that it reads as podkit's errors do.
#[track_caller]
pub(super) fn assert_kind<T>(result: Result<T>, kind: ErrorKind, about: &str) -> crate::Error {
    let Err(error) = result else {
        panic!("{about}: must fail with `{kind}`, but succeeded")
    };
    assert_eq!(error.kind(), kind, "{about}: {error:?}");
    let message = error.message();
    assert!(
        !message.is_empty() && !message.ends_with('.'),
        "{about}: {message:?}"
    );
    error
}

/// Asserts that a call was refused because the container lacks the id, which the error names.
#[track_caller]
pub(super) fn assert_no_such_id<T>(result: Result<T>, id: &str) {
    let error = assert_kind(result, ErrorKind::InvalidInput, id);
    let named = error
        .message()
        .ends_with(&format!(" {id}: this container has no such id"));
    assert!(named, "{id}: {error:?}");
}

/// Waits until `probe` gives a value.
pub(super) async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        loop {
            tick.tick().await;
            if let Some(value) = probe().await {
                return value;
            }
        }
    };
    tokio::time::timeout(BOUND, wait)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"))
}

/// `gc` that removes nothing but what crashes left.
pub(super) fn sweep_only() -> GcOptions {
    GcOptions::default()
}

impl Lab {
    /// Asserts that `spec` is refused as `Unsupported`, naming the field, and makes nothing.
    pub(super) async fn assert_unsupported(&self, spec: SessionSpec, field: &str) {
        let result = self.podkit().session("u", "refused").spec(spec).await;
        let error = assert_kind(result, ErrorKind::Unsupported, field);
        assert!(error.message().contains(field), "{error:?}");
        assert!(
            self.podkit().list().await.unwrap().is_empty(),
            "nothing was made"
        );
    }
}
