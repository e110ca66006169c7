//! An object store as the place where exports and archives go and come back from: `s3://bucket/prefix`.
//!
//! Address, region and keys come from the environment variables that other S3 clients read too (`AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, and `AWS_ALLOW_HTTP` for an endpoint without TLS). An object
//! appears whole or not at all: it is sent in parts and made of them at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, BackoffConfig, GetOptions, ObjectStore, ObjectStoreExt as _, PutMultipartOptions,
    RetryConfig, WriteMultipart,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Error, hex};
use crate::store::paths::Paths;

/// Size of a part. S3 takes 10,000: objects up to 80 GB.
const PART_BYTES: usize = 8 << 20;
/// What an object was made of: a mark in its metadata, `x-amz-meta-volant-made-of`.
const MADE_OF: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("volant-made-of"));
/// Parts on their way at a time.
const PARTS_AT_ONCE: usize = 4;

/// A place in an object store.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// Without the names that are put below it.
    prefix: Key,
    /// As it was given.
    url: String,
}

impl Bucket {
    /// True if `out` names an object store, not a file.
    #[must_use]
    pub fn is_named_by(out: &Path) -> bool {
        out.to_str().is_some_and(|out| out.starts_with("s3://"))
    }

    /// The place that `out` names. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Bucket`] if it is not named like `s3://bucket/prefix`, or the environment's settings do not hold together.
    pub fn open(out: &Path) -> Result<Self, Error> {
        let url = out.to_string_lossy().into_owned();
        let error = |source: object_store::Error| Error::Bucket { url: url.clone(), source };
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
        let retry = RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(60), backoff };
        let store = AmazonS3Builder::from_env().with_url(&url).with_retry(retry).build().map_err(error)?;
        let (_, path) = url.trim_start_matches("s3://").split_once('/').unwrap_or_default();
        let prefix = Key::parse(path.trim_matches('/')).map_err(|source| error(source.into()))?;
        Ok(Self { store: Arc::new(store), prefix, url })
    }

    /// The object of this name; without a name, the one that was named itself.
    fn key(&self, name: &str) -> Key {
        if name.is_empty() { self.prefix.clone() } else { self.prefix.clone().join(name) }
    }

    /// The mark that the object was written with; `None` if it has none or is not there.
    ///
    /// # Errors
    /// [`Error::Bucket`] if the store does not say.
    pub async fn made_of(&self, name: &str) -> Result<Option<String>, Error> {
        let only_about_it = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(&self.key(name), only_about_it).await {
            Ok(found) => Ok(found.attributes.get(&MADE_OF).map(|mark| mark.as_ref().to_owned())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.error(source)),
        }
    }

    /// Writes the object into a file; `progress` hears how many bytes are there, of how many. Returns its length.
    ///
    /// # Errors
    /// [`Error::Bucket`] of the store, [`Error::Io`] of the file.
    pub async fn fetch(
        &self,
        name: &str,
        into: &Path,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<u64, Error> {
        let io = |step| move |source| Error::Io { step, path: into.to_owned(), source };
        let object = self.store.get(&self.key(name)).await.map_err(|source| self.error(source))?;
        let total = object.meta.size;
        let mut file = tokio::fs::File::create(into).await.map_err(io("make"))?;
        let mut pieces = object.into_stream();
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await.map_err(|source| self.error(source))? {
            file.write_all(&piece).await.map_err(io("write"))?;
            bytes += piece.len() as u64;
            progress(bytes, total);
        }
        file.flush().await.map_err(io("write"))?;
        Ok(bytes)
    }

    /// Sends an object in pieces, and returns its length. After an error there is no object, or still the one before. `made_of` is
    /// what [`Self::made_of`] then answers; it needs to be ASCII.
    ///
    /// # Errors
    /// [`Error::Bucket`], or that of the pieces.
    pub async fn write<E: From<Error>>(
        &self,
        name: &str,
        made_of: Option<String>,
        mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, E> {
        let attributes: Attributes = made_of.map(|mark| (MADE_OF, mark)).into_iter().collect();
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let upload =
            self.store.put_multipart_opts(&self.key(name), options).await.map_err(|source| self.error(source))?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let sent = async {
            let mut bytes = 0;
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                parts.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|source| self.error(source))?;
                bytes += piece.len() as u64;
                parts.put(piece);
            }
            Ok(bytes)
        };
        match sent.await {
            Ok(bytes) => {
                parts.finish().await.map_err(|source| self.error(source))?;
                Ok(bytes)
            }
            Err(error) => {
                // Parts that nobody makes an object of cost money; the error that is told is the first.
                parts.abort().await.ok();
                Err(error)
            }
        }
    }

    /// Sends a file and reads the object back: what is there afterwards is the file, byte for byte.
    ///
    /// # Errors
    /// [`Error::Io`] of the file, [`Error::Bucket`] of the store, [`Error::Archive`] if the object is another.
    pub async fn keep(&self, name: &str, file: &Path) -> Result<u64, Error> {
        let io = |step| move |source| Error::Io { step, path: file.to_owned(), source };
        let opened = tokio::fs::File::open(file).await.map_err(io("open"))?;
        let mut sent = Sha256::new();
        let pieces = futures::stream::try_unfold(opened, |mut opened| async move {
            let mut piece = Vec::with_capacity(PART_BYTES / 8);
            let read = (&mut opened).take((PART_BYTES / 8) as u64).read_to_end(&mut piece).await.map_err(io("read"))?;
            Ok::<_, Error>((read > 0).then(|| (Bytes::from(piece), opened)))
        });
        let pieces = pieces.inspect_ok(|piece| sent.update(piece));
        let bytes = self.write(name, None, Box::pin(pieces)).await?;
        let mut kept = Sha256::new();
        let object = self.store.get(&self.key(name)).await.map_err(|source| self.error(source))?;
        let mut object = object.into_stream();
        while let Some(piece) = object.try_next().await.map_err(|source| self.error(source))? {
            kept.update(&piece);
        }
        if hex(&sent.finalize()) != hex(&kept.finalize()) {
            return Err(Error::Archive {
                what: "the object that was read back is another than the file that was sent".to_owned(),
                path: self.url.clone().into(),
            });
        }
        Ok(bytes)
    }

    fn error(&self, source: object_store::Error) -> Error {
        Error::Bucket { url: self.url.clone(), source }
    }
}

/// An archive that is made on this disk, where it can be gone on with after an interruption, and then sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it is made.
    pub file: PathBuf,
    bucket: Bucket,
}

impl Outgoing {
    /// The way of an archive to the object that `out` names.
    ///
    /// # Errors
    /// As [`Bucket::open`]; [`Error::Io`] if the folder cannot be made.
    pub fn open(paths: &Paths, out: &Path) -> Result<Self, Error> {
        let bucket = Bucket::open(out)?;
        let folder = paths.outgoing();
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
            step: "make folder",
            path: folder.clone(),
            source,
        })?;
        // One file for each place, whatever its name is made of.
        let name = hex(&Sha256::digest(bucket.url.as_bytes()));
        Ok(Self { file: folder.join(format!("{}.tar.zst", &name[..16])), bucket })
    }

    /// Sends the archive, reads it back, and gives up the file here.
    ///
    /// # Errors
    /// As [`Bucket::keep`]; the file then stays.
    pub async fn send(&self) -> Result<(), Error> {
        self.bucket.keep("", &self.file).await?;
        std::fs::remove_file(&self.file).map_err(|source| Error::Io { step: "delete", path: self.file.clone(), source })
    }
}
