//! The new API of a running server, as commands ask it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method, RequestBuilder, Url};
use serde_json::Value;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a file may be on its way and taken.
const FILE_TIMEOUT: Duration = Duration::from_hours(12);

/// Which server, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The server
    #[arg(long, value_name = "URL", env = "VOLANT_URL", default_value = "http://127.0.0.1:8000", global = true)]
    pub url: Url,
    /// A token of that server; `volant tokens create` makes one
    #[arg(long, value_name = "TOKEN", env = "VOLANT_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
}

/// Where a command works: in the data folder of a server that does not run, or by a running server.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FolderOrServer {
    /// The data folder of a server that does not run
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    pub(super) data_dir: PathBuf,
    /// Let a running server do it, e.g. http://127.0.0.1:8000
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    url: Option<Url>,
    /// A token of that server
    #[arg(long, value_name = "TOKEN", env = "VOLANT_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl FolderOrServer {
    /// The running server, if it is one.
    pub(super) fn server(&self) -> anyhow::Result<Option<Server>> {
        let target = self.url.as_ref().map(|url| Target { url: url.clone(), token: self.token.clone() });
        target.as_ref().map(Server::new).transpose()
    }
}

/// A server that can be asked.
#[derive(Debug)]
pub(super) struct Server {
    client: reqwest::Client,
    target: Target,
}

impl Server {
    pub(super) fn new(target: &Target) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().context("make a client")?;
        Ok(Self { client, target: target.clone() })
    }

    /// Asks for `path`, which starts below `/api/v2/`.
    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(self.request(Method::GET, path)?.query(query)).await
    }

    /// Posts to `path`, which starts below `/api/v2/`.
    pub(super) async fn post(&self, path: &[&str], body: Option<&Value>) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path)?;
        self.ask(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Posts a file to `path`, which starts below `/api/v2/`; it may take its time.
    pub(super) async fn send(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        content_type: &str,
        file: impl Into<Body>,
    ) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path)?.query(query).header(CONTENT_TYPE, content_type);
        self.ask(request.body(file).timeout(FILE_TIMEOUT)).await
    }

    /// Deletes `path`, which starts below `/api/v2/`.
    pub(super) async fn delete(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(self.request(Method::DELETE, path)?.query(query)).await
    }

    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.target.url.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(["api", "v2"]).extend(path),
            Err(()) => anyhow::bail!("--url {}: write it like http://127.0.0.1:8000", self.target.url),
        };
        let request = self.client.request(method, url);
        Ok(match &self.target.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let answer = request
            .send()
            .await
            .with_context(|| format!("reach {}; is the server running? volant serve starts it", self.target.url))?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("read the answer ({status})"))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        anyhow::bail!("{} ({}, {})", text("detail"), status.as_u16(), text("code"))
    }
}
