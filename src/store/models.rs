//! Models and pipelines that the service makes itself, as files that a person may look at, copy and take away.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write {}", path.display())]
pub struct Error {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Publishes a model and the pipeline that uses it, over earlier ones of the name: `NAME.safetensors` first, so that the
/// pipeline never names a model that is not there. Each file is the old one or the new one, whole.
///
/// # Errors
/// The folder cannot be written.
pub fn publish(folder: &Path, name: &str, model: &[u8], pipeline: &str) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    for (extension, bytes) in [("safetensors", model), ("toml", pipeline.as_bytes())] {
        let path = folder.join(format!("{name}.{extension}"));
        let temporary = folder.join(format!("_{name}.{extension}.tmp"));
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(failed(&path))?;
    }
    Ok(())
}

/// Deletes a model and its pipeline, if they are there.
///
/// # Errors
/// The folder cannot be written.
pub fn withdraw(folder: &Path, name: &str) -> Result<(), Error> {
    // The pipeline first: it never names a model that is not there.
    for extension in ["toml", "safetensors"] {
        let path = folder.join(format!("{name}.{extension}"));
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error { path, source }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_there_and_nothing_else_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("pipelines");
        publish(&inner, "player-1", b"old", "a").unwrap();
        publish(&inner, "player-1", b"model", "name").unwrap();
        assert_eq!(fs::read(inner.join("player-1.safetensors")).unwrap(), b"model");
        assert_eq!(fs::read_to_string(inner.join("player-1.toml")).unwrap(), "name");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 2);
        assert!(publish(&inner.join("player-1.toml"), "x", b"", "").is_err());
        withdraw(&inner, "player-1").unwrap();
        withdraw(&inner, "player-1").unwrap();
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    }
}
