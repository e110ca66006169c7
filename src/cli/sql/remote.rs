//! A running server as the place where statements are answered.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::{Client, Response, Url};

use super::{Failure, Rows, chain};
use crate::query::Format;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An error answer that is longer is not read.
const PROBLEM_LIMIT_BYTES: usize = 64 * 1024;

/// A server's SQL route.
pub(super) struct Remote {
    client: Client,
    url: Url,
    token: Option<String>,
    timeout_ms: Option<u64>,
}

impl Remote {
    pub(super) fn new(url: &str, token: Option<&str>, timeout_s: Option<u64>) -> Result<Self, Failure> {
        let bad =
            |why: &str| Failure::new(2, format!("--url {url}: {why}")).hint("write it like http://127.0.0.1:8000");
        let base: Url = url.parse().map_err(|_| bad("not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("not an http URL"));
        }
        let url = format!("{}/api/v2/sql", base.as_str().trim_end_matches('/'));
        Ok(Self {
            client: Client::builder().connect_timeout(CONNECT_TIMEOUT).build().map_err(|error| bad(&chain(&error)))?,
            url: url.parse().map_err(|_| bad("not a URL"))?,
            token: token.map(str::to_owned),
            timeout_ms: timeout_s.map(|seconds| seconds.saturating_mul(1000)),
        })
    }

    pub(super) async fn rows(&self, sql: &str) -> Result<Rows, Failure> {
        let mut pieces = self.bytes(sql, Format::Arrow).await?;
        let mut decoder = StreamDecoder::new();
        let mut batches: Vec<RecordBatch> = Vec::new();
        // The schema comes first; the batches that came with it are kept.
        let schema = loop {
            match pieces.next().await {
                Some(piece) => batches.extend(decode(&mut decoder, piece?)?),
                None => return Err(cut()),
            }
            if let Some(schema) = decoder.schema() {
                break schema;
            }
        };
        let rest = futures::stream::unfold(Some((pieces, decoder)), |state| async move {
            let (mut pieces, mut decoder) = state?;
            match pieces.next().await {
                Some(piece) => match piece.and_then(|piece| decode(&mut decoder, piece)) {
                    Ok(batches) => Some((Ok(batches), Some((pieces, decoder)))),
                    Err(failure) => Some((Err(failure), None)),
                },
                None => decoder.finish().is_err().then(|| (Err(cut()), None)),
            }
        });
        let batches = futures::stream::iter([Ok(batches)]).chain(rest).flat_map(|batches| {
            futures::stream::iter(match batches {
                Ok(batches) => batches.into_iter().map(Ok).collect(),
                Err(failure) => vec![Err(failure)],
            })
        });
        Ok(Rows { schema, batches: batches.boxed() })
    }

    pub(super) async fn bytes(
        &self,
        sql: &str,
        format: Format,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        let response = self.post(sql, format).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.bytes_stream().map(|piece| piece.map_err(|_| cut())).boxed());
        }
        let mut body = BytesMut::new();
        let mut pieces = response.bytes_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            if body.len() + piece.len() > PROBLEM_LIMIT_BYTES {
                break;
            }
            body.extend_from_slice(&piece);
        }
        Err(problem(status.as_u16(), &body))
    }

    async fn post(&self, sql: &str, format: Format) -> Result<Response, Failure> {
        let mut body = serde_json::json!({ "query": sql, "format": format.name() });
        if let Some(timeout_ms) = self.timeout_ms {
            body["timeout_ms"] = timeout_ms.into();
        }
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|error| {
            Failure::new(4, format!("reach {}: {}", self.url.authority(), chain(&error)))
                .hint("is the server running? volant serve starts it")
        })
    }
}

fn decode(decoder: &mut StreamDecoder, piece: Bytes) -> Result<Vec<RecordBatch>, Failure> {
    let mut buffer = Buffer::from(piece);
    let mut batches = Vec::new();
    while !buffer.is_empty() {
        let batch =
            decoder.decode(&mut buffer).map_err(|error| Failure::new(4, format!("read the answer: {error}")))?;
        batches.extend(batch);
    }
    Ok(batches)
}

fn cut() -> Failure {
    Failure::new(3, "the server ended the answer before it was complete")
        .hint("a limit of the server was reached: ask for fewer rows, or raise the server's query limits")
}

/// A failure as the server tells it (RFC 9457).
fn problem(status: u16, body: &[u8]) -> Failure {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let exit = match (status, problem["code"].as_str()) {
        (422 | 503, _) => 3,
        (400 | 403 | 413, Some(_)) => 1,
        _ => 4,
    };
    let Some(detail) = problem["detail"].as_str() else {
        return Failure::new(4, format!("the server answered with status {status}"))
            .hint("does --url name a Volant server, and are you allowed to ask it?");
    };
    let failure = Failure::new(exit, detail);
    if status == 401 {
        return failure
            .hint("give a token with --token or VOLANT_TOKEN; volant tokens create --key --scope sql makes one");
    }
    match problem["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
