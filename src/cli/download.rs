//! A file from a server, gone on with where it was cut.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use indicatif::ProgressBar;
use reqwest::{RequestBuilder, Response, StatusCode, header};

/// How often the rest is asked for at once, and how long after the cut; then the next run does.
const ATTEMPTS_LIMIT: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What is there of a file: it grows as `PATH.part`, and `PATH.part.tag` says which file it is a part of.
#[derive(Debug)]
pub(super) struct Part {
    file: PathBuf,
    tag: PathBuf,
}

impl Part {
    pub(super) fn of(path: &Path) -> Self {
        let with = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self { file: with(".part"), tag: with(".part.tag") }
    }

    /// Where the bytes are.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Asks for what is missing until nothing is. `ask` makes the request, `answered` reads a refusal. Returns how many
    /// bytes an earlier run had left.
    ///
    /// What came stays where it is whatever happens, for the next run.
    pub(super) async fn fetch(
        &self,
        ask: impl Fn() -> RequestBuilder,
        answered: impl AsyncFn(RequestBuilder) -> anyhow::Result<Response>,
        bar: &ProgressBar,
    ) -> anyhow::Result<u64> {
        let mut left = None;
        for attempt in 1.. {
            let there = self.there();
            let mut request = ask();
            if let Some((tag, bytes)) = &there {
                request = request.header(header::RANGE, format!("bytes={bytes}-")).header(header::IF_RANGE, tag);
            }
            let answer = answered(request).await?;
            let goes_on = there.filter(|_| answer.status() != StatusCode::OK).map_or(0, |(_, bytes)| bytes);
            let left = *left.get_or_insert(goes_on);
            if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(left);
            }
            match self.take(answer, goes_on, bar).await? {
                None => return Ok(left),
                Some(cut) if attempt == ATTEMPTS_LIMIT => {
                    let kept = format!("the answer was cut; {} is gone on with next time", self.file.display());
                    return Err(cut).context(kept);
                }
                Some(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        unreachable!("the attempts end by themselves")
    }

    /// Gives the whole its name.
    pub(super) fn finish(&self, path: &Path) -> anyhow::Result<()> {
        fs::rename(&self.file, path).with_context(|| format!("rename to {}", path.display()))?;
        fs::remove_file(&self.tag).with_context(|| format!("delete {}", self.tag.display()))
    }

    /// What is there is of no use to anybody.
    pub(super) fn give_up(&self) {
        fs::remove_file(&self.file).ok();
        fs::remove_file(&self.tag).ok();
    }

    /// The tag and the length of what is there.
    fn there(&self) -> Option<(String, u64)> {
        let tag = fs::read_to_string(&self.tag).ok().filter(|tag| !tag.is_empty())?;
        let bytes = fs::metadata(&self.file).ok()?.len();
        (bytes > 0).then_some((tag, bytes))
    }

    /// Writes an answer behind the first `from` bytes. Returns why it was cut, if it was.
    async fn take(&self, answer: Response, from: u64, bar: &ProgressBar) -> anyhow::Result<Option<reqwest::Error>> {
        let write = || format!("write {}", self.file.display());
        let mut file: File = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&self.file)
            .with_context(|| format!("make {}", self.file.display()))?;
        file.set_len(from).and_then(|()| file.seek(SeekFrom::End(0))).with_context(write)?;
        if from == 0 {
            let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
            fs::write(&self.tag, tag).with_context(|| format!("write {}", self.tag.display()))?;
        }
        bar.set_position(from);
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => file.write_all(&piece).with_context(write)?,
                Err(cut) => return Ok(Some(cut)),
            }
            bar.set_position(file.stream_position().with_context(write)?);
        }
        file.sync_all().with_context(|| format!("sync {}", self.file.display()))?;
        Ok(None)
    }
}
