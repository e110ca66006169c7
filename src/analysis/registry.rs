//! The pipelines that this service knows: the one that ships, and the files of a folder, read anew at each look, so that a
//! file that is put there counts at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipelines::{Model, ModelError, Pipeline, PipelineError};

/// A pipeline with its model, ready to run.
#[derive(Clone, Debug)]
pub struct Known {
    pub pipeline: Arc<Pipeline>,
    pub model: Option<Arc<Model>>,
    /// Of everything that the results depend on.
    pub sha256: String,
    /// `None`: it ships with the program.
    pub path: Option<PathBuf>,
}

/// Why a file is no pipeline that can run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("use {}", path.display())]
    Pipeline {
        path: PathBuf,
        #[source]
        source: PipelineError,
    },
    #[error("use {}: its name {name} is that of another pipeline", path.display())]
    Twice { path: PathBuf, name: String },
    #[error("use model {}", path.display())]
    Model {
        path: PathBuf,
        #[source]
        source: ModelError,
    },
}

impl Refused {
    /// What is wrong, with its causes.
    #[must_use]
    pub fn problem(&self) -> String {
        super::chain(self)
    }

    /// The file that is wrong.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::Pipeline { path, .. }
            | Self::Twice { path, .. }
            | Self::Model { path, .. } => path,
        }
    }
}

/// What was found: pipelines by name, and the files that were refused.
#[derive(Debug, Default)]
pub struct Found {
    pub known: BTreeMap<String, Known>,
    pub refused: Vec<Refused>,
}

/// Where pipelines are looked for.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
}

impl Registry {
    /// Reads `*.toml` of this folder, and the model files beside them. The folder need not be there.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where pipelines and models lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything there is. Reads files.
    #[must_use]
    pub fn look(&self) -> Found {
        let mut found = Found::default();
        let builtin = Pipeline::builtin();
        let known = Known {
            pipeline: Arc::new(builtin.clone()),
            model: Some(Arc::new(Model::builtin().clone())),
            sha256: builtin.sha256(Some(Model::builtin())),
            path: None,
        };
        found.known.insert(builtin.name().to_owned(), known);
        let mut waiting = self.files(&mut found);
        // A file may extend another: those whose base is not there yet are read again after the others.
        loop {
            let before = waiting.len();
            let mut missing = Vec::new();
            for (path, text) in waiting {
                let base = |name: &str| found.known.get(name).map(|known| Pipeline::clone(&known.pipeline));
                match Pipeline::from_toml(&text, base) {
                    Ok(pipeline) => match self.ready(pipeline, &path, &found) {
                        Ok(known) => drop(found.known.insert(known.pipeline.name().to_owned(), known)),
                        Err(refused) => found.refused.push(refused),
                    },
                    Err(PipelineError::Base { .. }) => missing.push((path, text)),
                    Err(source) => found.refused.push(Refused::Pipeline { path, source }),
                }
            }
            waiting = missing;
            if waiting.len() == before {
                for (path, text) in waiting {
                    let Err(source) = Pipeline::from_toml(&text, |_| None) else { continue };
                    found.refused.push(Refused::Pipeline { path, source });
                }
                return found;
            }
        }
    }

    /// One pipeline, if it is there and can run. Reads files.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Known> {
        self.look().known.remove(name)
    }

    fn files(&self, found: &mut Found) -> Vec<(PathBuf, String)> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        let mut texts = Vec::new();
        for path in paths {
            match std::fs::read_to_string(&path) {
                Ok(text) => texts.push((path, text)),
                Err(source) => found.refused.push(Refused::Io { path, source }),
            }
        }
        texts
    }

    fn ready(&self, pipeline: Pipeline, path: &Path, found: &Found) -> Result<Known, Refused> {
        let model = pipeline.model.as_deref().map(|name| self.model(name)).transpose()?;
        let sha256 = pipeline.sha256(model.as_deref());
        // A copy of what ships is that pipeline, and no second one.
        if found.known.get(pipeline.name()).is_some_and(|known| known.path.is_some() || known.sha256 != sha256) {
            return Err(Refused::Twice { path: path.to_owned(), name: pipeline.name().to_owned() });
        }
        Ok(Known { pipeline: Arc::new(pipeline), model, sha256, path: Some(path.to_owned()) })
    }

    fn model(&self, name: &str) -> Result<Arc<Model>, Refused> {
        if name == Model::builtin().name() {
            return Ok(Arc::new(Model::builtin().clone()));
        }
        // A file of this folder, never one elsewhere.
        let file = Path::new(name).file_name().unwrap_or_default();
        let path = self.folder.join(file);
        let bytes = std::fs::read(&path).map_err(|source| Refused::Io { path: path.clone(), source })?;
        Model::from_bytes(&bytes).map(Arc::new).map_err(|source| Refused::Model { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_extend_each_other_and_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let builtin = Pipeline::builtin().name();
        let write = |file: &str, text: String| std::fs::write(folder.path().join(file), text).unwrap();
        write("a.toml", "name = \"child\"\nextends = \"parent\"\n[segment]\nfloor = 0.9\n".to_owned());
        write("b.toml", format!("name = \"parent\"\nextends = \"{builtin}\"\n[segment]\nhistory_s = 20\n"));
        write("c.toml", format!("name = \"parent\"\nextends = \"{builtin}\"\n"));
        write("d.toml", format!("name = \"modelled\"\nextends = \"{builtin}\"\nmodel = \"other.safetensors\"\n"));
        write("e.toml", "name = \"orphan\"\nextends = \"nobody\"\n".to_owned());
        write("f.toml", format!("name = \"broken\"\nextends = \"{builtin}\"\n[segment]\nflor = 1\n"));
        write("notes.txt", "no pipeline".to_owned());
        let registry = Registry::new(folder.path().to_owned());
        let found = registry.look();
        assert_eq!(found.known.keys().map(String::as_str).collect::<Vec<_>>(), ["child", "parent", builtin]);
        let child = &found.known["child"].pipeline.params.segment;
        assert!((child.floor, child.history_s) == (0.9, 20.0));
        let mut refused: Vec<String> = found
            .refused
            .iter()
            .map(|refused| refused.path().file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        refused.sort();
        assert_eq!(refused, ["c.toml", "e.toml", "f.toml", "other.safetensors"]);

        std::fs::write(folder.path().join("other.safetensors"), Model::builtin().to_bytes().unwrap()).unwrap();
        let modelled = registry.get("modelled").unwrap();
        assert_eq!(modelled.model.unwrap().sha256(), Model::builtin().sha256());
        assert!(Registry::new(folder.path().join("absent")).get(builtin).is_some());

        // The pipelines of the repository.
        let shipped = Registry::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")).look();
        // The crate's own manifest lies there too, and is none.
        let refused = shipped.refused.iter().filter(|refused| !refused.path().ends_with("Cargo.toml"));
        assert_eq!(refused.count(), 0, "{:?}", shipped.refused);
        assert_eq!(shipped.known.keys().collect::<Vec<_>>(), [builtin, "watch-1"]);
    }
}
