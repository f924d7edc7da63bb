//! The files of a session's container.

use std::{path::PathBuf, sync::Arc};

use podkit::{FileWatch, TransferReport, WriteOptions};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};
use tokio::{io::AsyncReadExt, sync::Mutex};

use crate::{
    call::{Call, Owned},
    convert,
    failure::exception,
    transfer::{Answer, Sink, Source, stopped},
};

/// The container's files, as one user sees them.
#[pyclass(frozen)]
pub(crate) struct Files(pub(crate) Owned<podkit::Files>);

impl Files {
    fn get(&self, py: Python<'_>) -> PyResult<podkit::Files> {
        Ok(self.0.get(py)?.clone())
    }
}

fn transferred(py: Python<'_>, report: &TransferReport) -> PyResult<Py<PyAny>> {
    let failed = report.failed.iter().map(|error| exception(py, error));
    let facts = PyDict::new(py);
    facts.set_item("entries", report.entries)?;
    facts.set_item("bytes", report.bytes)?;
    facts.set_item("failed", failed.collect::<PyResult<Vec<_>>>()?)?;
    facts.set_item("failed_more", report.failed_more)?;
    Ok(facts.into_any().unbind())
}

#[pymethods]
impl Files {
    /// Reads a file, from `offset` on and at most `limit` bytes.
    #[pyo3(signature = (path, *, offset = 0, limit = None))]
    fn read(
        &self,
        py: Python<'_>,
        path: String,
        offset: u64,
        limit: Option<u64>,
    ) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move {
            if offset == 0 && limit.is_none() {
                return files.read(&path).await;
            }
            let mut bytes = Vec::new();
            let mut reader = files.read_range(&path, offset, limit).await?;
            let read = reader.read_to_end(&mut bytes).await;
            read.map_err(stopped)?;
            Ok(bytes)
        };
        Ok(Call::new(work, |py, bytes| {
            Ok(PyBytes::new(py, &bytes).into_any().unbind())
        }))
    }

    #[pyo3(signature = (path, content, *, mode = None, parents = true, append = false))]
    fn write(
        &self,
        py: Python<'_>,
        path: String,
        content: &[u8],
        mode: Option<u32>,
        parents: bool,
        append: bool,
    ) -> PyResult<Call> {
        let (files, content) = (self.get(py)?, content.to_vec());
        let options = write_options(mode, parents, append);
        let work = async move { files.write_with(&path, options, content.as_slice()).await };
        Ok(Call::new(work, |py, _| Ok(py.None())))
    }

    /// Reads a file of any size as it is read from.
    #[pyo3(signature = (path, *, offset = 0, limit = None))]
    fn read_stream(
        &self,
        py: Python<'_>,
        path: String,
        offset: u64,
        limit: Option<u64>,
    ) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.read_range(&path, offset, limit).await };
        Ok(Call::new(work, |py, reader| {
            Ok(Py::new(py, Source::new(reader))?.into_any())
        }))
    }

    /// Begins to write a file of any size; finished, it gives the number of bytes.
    #[pyo3(signature = (path, *, mode = None, parents = true, append = false))]
    fn write_stream(
        &self,
        py: Python<'_>,
        path: String,
        mode: Option<u32>,
        parents: bool,
        append: bool,
    ) -> PyResult<Sink> {
        let files = self.get(py)?;
        let options = write_options(mode, parents, append);
        Sink::new(py, move |fed| async move {
            let bytes = files.write_with(&path, options, fed).await?;
            let answer: Answer =
                Box::new(move |py| Ok(bytes.into_pyobject(py)?.into_any().unbind()));
            Ok(answer)
        })
    }

    fn list(&self, py: Python<'_>, path: String) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.list(&path).await };
        Ok(Call::new(work, |py, found| {
            let found = found.iter().map(|entry| convert::entry(py, entry));
            let found = found.collect::<PyResult<Vec<_>>>()?;
            Ok(found.into_pyobject(py)?.unbind())
        }))
    }

    fn stat(&self, py: Python<'_>, path: String) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.stat(&path).await };
        Ok(Call::new(work, |py, entry| {
            Ok(convert::entry(py, &entry)?.into_any().unbind())
        }))
    }

    fn exists(&self, py: Python<'_>, path: String) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.exists(&path).await };
        Ok(Call::new(work, |py, there| {
            Ok(there.into_pyobject(py)?.to_owned().into_any().unbind())
        }))
    }

    fn make_dir(&self, py: Python<'_>, path: String, parents: bool) -> PyResult<Call> {
        let files = self.get(py)?;
        Ok(Call::done(async move {
            if parents {
                files.make_dir_all(&path).await
            } else {
                files.make_dir(&path).await
            }
        }))
    }

    fn rename(&self, py: Python<'_>, from: String, to: String) -> PyResult<Call> {
        let files = self.get(py)?;
        Ok(Call::done(async move { files.rename(&from, &to).await }))
    }

    fn remove(&self, py: Python<'_>, path: String, recursive: bool) -> PyResult<Call> {
        let files = self.get(py)?;
        Ok(Call::done(async move {
            if recursive {
                files.remove_all(&path).await
            } else {
                files.remove(&path).await
            }
        }))
    }

    /// Copies a file or a tree of this machine's into the container.
    fn upload(&self, py: Python<'_>, from: PathBuf, to: String) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.upload(from, &to).await };
        Ok(Call::new(work, |py, report| transferred(py, &report)))
    }

    /// Copies a file or a tree of the container's to this machine.
    fn download(&self, py: Python<'_>, from: String, to: PathBuf) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.download(&from, to).await };
        Ok(Call::new(work, |py, report| transferred(py, &report)))
    }

    /// A file or a tree as a tar archive.
    fn archive(&self, py: Python<'_>, path: String) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.archive(&path).await };
        Ok(Call::new(work, |py, reader| {
            Ok(Py::new(py, Source::new(reader))?.into_any())
        }))
    }

    /// Begins to make what a tar archive holds.
    fn extract(&self, py: Python<'_>, to: String) -> PyResult<Sink> {
        let files = self.get(py)?;
        Sink::new(py, move |fed| async move {
            let report = files.extract(&to, fed).await?;
            let answer: Answer = Box::new(move |py| transferred(py, &report));
            Ok(answer)
        })
    }

    fn disk_usage(&self, py: Python<'_>, path: String) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.disk_usage(&path).await };
        Ok(Call::new(work, |py, usage| {
            let facts = PyDict::new(py);
            facts.set_item("disk_bytes", usage.disk_bytes)?;
            facts.set_item("size_bytes", usage.size_bytes)?;
            facts.set_item("files", usage.files)?;
            facts.set_item("directories", usage.directories)?;
            facts.set_item("unread", usage.unread)?;
            Ok(facts.into_any().unbind())
        }))
    }

    /// Watches a directory; no change is missed any more when the call has ended.
    fn watch(&self, py: Python<'_>, path: String, recursive: bool) -> PyResult<Call> {
        let files = self.get(py)?;
        let work = async move { files.watch(&path, recursive).await };
        Ok(Call::new(work, |py, watch| {
            Ok(Py::new(py, Watch(Owned::new(Arc::new(Mutex::new(watch)))))?.into_any())
        }))
    }
}

fn write_options(mode: Option<u32>, parents: bool, append: bool) -> WriteOptions {
    let mut options = WriteOptions::new()
        .with_parents(parents)
        .with_append(append);
    options.mode = mode;
    options
}

/// Changes below a directory, until the object goes.
#[pyclass(frozen)]
pub(crate) struct Watch(Owned<Arc<Mutex<FileWatch>>>);

#[pymethods]
impl Watch {
    /// The next change; `None` once the directory is gone.
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let watch = Arc::clone(self.0.get(py)?);
        let work = async move { watch.lock().await.next().await.transpose() };
        Ok(Call::new(work, |py, change| match change {
            None => Ok(py.None()),
            Some(change) => {
                let facts = PyDict::new(py);
                facts.set_item("kind", change.kind.as_str())?;
                facts.set_item("directory", change.directory)?;
                facts.set_item("path", change.path)?;
                Ok(facts.into_any().unbind())
            }
        }))
    }
}
