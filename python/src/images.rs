//! An engine's images.

use std::{sync::mpsc, thread};

use bytes::Bytes;
use futures::{StreamExt, stream};
use podkit::{ImageInfo, PullProgress, PullRequest};
use pyo3::{prelude::*, types::PyDict};
use tokio::io::AsyncReadExt;

use crate::{
    call::{Call, Owned},
    convert::epoch,
    transfer::{Answer, CHUNK_BYTES, Fed, Sink},
};

/// News of a pull that wait for Python; what comes meanwhile is left out.
const WAITING_NEWS: usize = 256;

fn image(py: Python<'_>, info: &ImageInfo) -> PyResult<Py<PyAny>> {
    let facts = PyDict::new(py);
    facts.set_item("id", &info.id)?;
    facts.set_item("names", &info.names)?;
    facts.set_item("digests", &info.digests)?;
    facts.set_item("size_bytes", info.size_bytes)?;
    facts.set_item("created_at", info.created_at.map(epoch))?;
    facts.set_item("platform", info.platform.as_deref())?;
    facts.set_item("entrypoint", &info.entrypoint)?;
    facts.set_item("command", &info.command)?;
    facts.set_item("user", info.user.as_deref())?;
    Ok(facts.into_any().unbind())
}

/// Passes on how far a pull is, from a thread of its own: nobody waits for Python.
pub(crate) fn pull_teller(tell: Py<PyAny>) -> impl Fn(&PullProgress) + Send + Sync + 'static {
    let (news, told) = mpsc::sync_channel::<PullProgress>(WAITING_NEWS);
    let name = "podkit-pulls".to_owned();
    let spawned = thread::Builder::new().name(name).spawn(move || {
        for progress in told {
            // Nobody is told any more while the interpreter ends.
            let _: Option<()> = Python::try_attach(|py| {
                let facts = PyDict::new(py);
                let told = facts
                    .set_item("image", &progress.image)
                    .and_then(|()| facts.set_item("layer", progress.layer.as_deref()))
                    .and_then(|()| facts.set_item("status", &progress.status))
                    .and_then(|()| facts.set_item("current", progress.current))
                    .and_then(|()| facts.set_item("total", progress.total))
                    .and_then(|()| tell.call1(py, (facts,)));
                if let Err(error) = told {
                    error.write_unraisable(py, None);
                }
            });
        }
    });
    move |progress| {
        // Without a thread, or with one that is behind, the pull goes on all the same.
        if spawned.is_ok() {
            let _ = news.try_send(progress.clone());
        }
    }
}

/// The images of an engine.
#[pyclass(frozen)]
pub(crate) struct Images(pub(crate) Owned<podkit::Podkit>);

impl Images {
    fn get(&self, py: Python<'_>) -> PyResult<podkit::Podkit> {
        Ok(self.0.get(py)?.clone())
    }
}

#[pymethods]
impl Images {
    /// Fetches an image from its registry, and looks at it.
    #[pyo3(signature = (name, platform = None))]
    fn pull(&self, py: Python<'_>, name: String, platform: Option<String>) -> PyResult<Call> {
        let podkit = self.get(py)?;
        let work = async move {
            let request = PullRequest::new(&name).with_platform(platform);
            podkit.containers().pull(&request).await?;
            podkit.containers().inspect_image(&name).await
        };
        Ok(Call::new(work, |py, info| image(py, &info)))
    }

    fn list(&self, py: Python<'_>) -> PyResult<Call> {
        let podkit = self.get(py)?;
        let work = async move { podkit.containers().list_images().await };
        Ok(Call::new(work, |py, found| {
            let found = found.iter().map(|info| image(py, info));
            let found = found.collect::<PyResult<Vec<_>>>()?;
            Ok(found.into_pyobject(py)?.unbind())
        }))
    }

    fn inspect(&self, py: Python<'_>, name: String) -> PyResult<Call> {
        let podkit = self.get(py)?;
        let work = async move { podkit.containers().inspect_image(&name).await };
        Ok(Call::new(work, |py, info| image(py, &info)))
    }

    fn remove(&self, py: Python<'_>, name: String) -> PyResult<Call> {
        let podkit = self.get(py)?;
        Ok(Call::done(async move {
            podkit.containers().remove_image(&name).await
        }))
    }

    /// Begins to make an image from a tar archive of a root file system, which is written to what
    /// this gives.
    fn import_archive(&self, py: Python<'_>, name: String) -> PyResult<Sink> {
        let podkit = self.get(py)?;
        Sink::new(py, move |fed| async move {
            let images = podkit.containers();
            images.import_image(&name, chunks(fed).boxed()).await?;
            let info = images.inspect_image(&name).await?;
            let answer: Answer = Box::new(move |py| image(py, &info));
            Ok(answer)
        })
    }
}

fn chunks(fed: Fed) -> impl stream::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(fed), |fed| async move {
        let mut fed = fed?;
        let mut chunk = vec![0; CHUNK_BYTES];
        match fed.read(&mut chunk).await {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                Some((Ok(Bytes::from(chunk)), Some(fed)))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}
