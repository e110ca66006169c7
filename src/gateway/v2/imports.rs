//! What is brought to the service: recordings and archives, as files.
//!
//! A file goes to the disk as it comes, below the data folder, and is deleted when the request ends, however it ends. It may
//! come as slowly as it likes, so long as it does not stand still.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::BodyDataStream;
use axum::extract::{Request, State as AxumState};
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures::StreamExt as _;
use schemas::ids::is_path_segment;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tracing::Instrument as _;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Query;
use super::{Problems, fresh};
use crate::accounts::{OPENID_LIMIT_BYTES, Scope};
use crate::gateway::access::{Access, device_code};
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared};
use crate::migration::{ArchiveReport, Brought, BroughtError, TakenRecording};
use crate::store::space;

/// Files that arrive or wait at once; a further one waits for a place as long as for a body, then it is answered 503.
pub(in crate::gateway) const AT_ONCE: usize = 4;

/// Free space is looked up after this many bytes of a file.
const SPACE_CHECK_BYTES: u64 = 4 << 20;

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new().routes(routes!(recordings)).routes(routes!(archive))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NewRecordings {
    /// Device code of the sessions; without it `imported`.
    device_code: Option<String>,
    /// Who plays; without it, nobody known.
    player_openid: Option<String>,
    /// When the first recording began, µs since 1970 UTC, the others follow it; without it, what the file says, else now.
    started_at_us: Option<i64>,
    /// Name of the recording where the file has no column `recording`.
    name: Option<String>,
    /// Read everything, say what would be taken, and store nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What came of a file of recordings.
#[derive(Serialize, ToSchema)]
struct Recordings {
    recordings: Vec<TakenRecording>,
    /// Frames of those that were taken now.
    frames: usize,
    /// Recordings that were there already, under whatever name.
    already: usize,
    dry_run: bool,
}

/// Bring recordings
///
/// Each recording of the file becomes a session, which is analysed like any other; nobody is notified. The file is Parquet or CSV
/// with the columns `t_ms`, `ax`, `ay`, `az` (m/s²), `gx`, `gy`, `gz` (°/s) and, if it likes, `sensor`, `roll`, `pitch`, `yaw`
/// (°), `recording`. What is there already is passed over, so a request may be repeated. Needs the scope `sessions:write`.
#[utoipa::path(
    post, path = "/api/v2/imports/recordings", tag = "data", params(NewRecordings),
    request_body(content((Vec<u8> = "application/octet-stream"), (String = "text/csv"))),
    responses((status = 200, body = Recordings), Problems)
)]
async fn recordings(
    AxumState(context): Shared,
    access: Access,
    Query(new): Query<NewRecordings>,
    request: Request,
) -> Result<Response, ApiError> {
    access.scope(Scope::SessionsWrite)?;
    let name = new.name.unwrap_or_else(|| "recording".to_owned());
    if !is_path_segment(&name) {
        return Err(ApiError::bad_request("name is 1 to 64 letters, digits, '.', '_' and '-'"));
    }
    if new.player_openid.as_ref().is_some_and(|openid| openid.is_empty() || openid.len() > OPENID_LIMIT_BYTES) {
        return Err(ApiError::bad_request(format!("player_openid is 1 to {OPENID_LIMIT_BYTES} bytes")));
    }
    let brought = Brought {
        device: device_code(new.device_code.as_deref().unwrap_or("imported"))?,
        openid: new.player_openid,
        started_at_us: new.started_at_us,
    };
    let (importer, dry_run) = (context.state.importer.clone(), new.dry_run);
    let limit_bytes = context.options.file_limit_bytes as u64;
    let file = receive(&context, request, &name, limit_bytes);
    let work = move |file| async move { importer.recordings(file, brought, dry_run).await };
    let subject = move |taken: &Vec<TakenRecording>| {
        let sessions = taken.iter().filter(|taken| !taken.already).filter_map(|taken| taken.session_id);
        let sessions: Vec<String> = sessions.map(|id| id.to_string()).collect();
        (!dry_run && !sessions.is_empty()).then(|| sessions.join(","))
    };
    let recordings = taken(&context, &access, file, work, "import.recordings", subject).await?;
    let frames = recordings.iter().filter(|taken| !taken.already).map(|taken| taken.frames).sum();
    let already = recordings.iter().filter(|taken| taken.already).count();
    Ok(fresh(Recordings { recordings, frames, already, dry_run }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NewArchive {
    /// Check the archive, say what would be taken, and store nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Bring an archive
///
/// As an export with `format=archive` gives it, of this or another service. Sessions keep their numbers where they are free;
/// what is there already is passed over, so a request may be repeated, and so are players who were erased here. For admins.
#[utoipa::path(
    post, path = "/api/v2/imports/archives", tag = "data", params(NewArchive),
    request_body(content((Vec<u8> = "application/octet-stream"))),
    responses((status = 200, body = ArchiveReport), Problems)
)]
async fn archive(
    AxumState(context): Shared,
    access: Access,
    Query(new): Query<NewArchive>,
    request: Request,
) -> Result<Response, ApiError> {
    access.admin()?;
    let (importer, dry_run) = (context.state.importer.clone(), new.dry_run);
    let limit_bytes = context.options.archive_limit_bytes;
    let file = receive(&context, request, "archive", limit_bytes);
    let work = move |file| async move { importer.archive(file, dry_run).await };
    let subject =
        move |report: &ArchiveReport| (report.taken > 0 && !dry_run).then(|| format!("{} sessions", report.taken));
    Ok(fresh(taken(&context, &access, file, work, "import.archive", subject).await?))
}

/// Receives a file and has it taken; what was begun is finished, also if the caller goes away.
async fn taken<T, Work>(
    context: &Arc<Context>,
    access: &Access,
    file: impl Future<Output = Result<Received, ApiError>>,
    work: impl FnOnce(PathBuf) -> Work + Send + 'static,
    action: &'static str,
    subject: impl FnOnce(&T) -> Option<String> + Send + 'static,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    Work: Future<Output = Result<T, BroughtError>> + Send,
{
    let place = timeout(context.options.body_timeout, context.imports.acquire()).await;
    let _place = place.map_err(|_| busy())?.map_err(|_| ApiError::broke())?;
    let refused = |error: &ApiError| {
        metrics::counter!("volant_migration_refused_files_total", "reason" => error.code).increment(1);
    };
    let Received { folder, file } = file.await.inspect_err(refused)?;
    let (context, actor) = (Arc::clone(context), access.actor());
    let work = async move {
        let taken = work(file).await.map_err(|error| without(folder.path(), error.into()))?;
        if let Some(subject) = subject(&taken) {
            context.state.accounts.audit(&actor, action, &subject, None).await?;
        }
        Ok(taken)
    };
    let taken = tokio::spawn(work.in_current_span()).await.map_err(|_| ApiError::broke())?;
    taken.inspect_err(refused)
}

/// The error without the folder in which a file lay meanwhile: that is nobody's business.
fn without(folder: &Path, mut error: ApiError) -> ApiError {
    let within = format!("{}/", folder.display());
    error.message = error.message.replace(&within, "");
    for (_, value) in &mut error.arguments {
        *value = value.replace(&within, "");
    }
    error
}

/// A file that has arrived; it is deleted when this is dropped.
struct Received {
    folder: TempDir,
    file: PathBuf,
}

async fn receive(context: &Context, request: Request, name: &str, limit_bytes: u64) -> Result<Received, ApiError> {
    let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|bytes: u64| bytes > limit_bytes) {
        return Err(too_large());
    }
    let unwritable = |error| ApiError::internal("store_unavailable", "the file could not be kept", error);
    let incoming = context.state.paths.incoming();
    tokio::fs::create_dir_all(&incoming).await.map_err(unwritable)?;
    // What is made of it takes about as much again.
    let has_room = |to_come: u64| {
        space::free_bytes(&incoming)
            .map_or(true, |free| free >= context.options.min_free_bytes.saturating_add(to_come.saturating_mul(2)))
    };
    if !has_room(told.unwrap_or(0)) {
        return Err(ApiError::disk_full());
    }
    let folder = tempfile::Builder::new().prefix("file-").tempdir_in(&incoming).map_err(unwritable)?;
    let mut body = request.into_body().into_data_stream();
    let first =
        next(context, &mut body).await?.ok_or_else(|| ApiError::bad_request("the body is empty: send a file"))?;
    // What the content is not, the reader says.
    let ending = if first.starts_with(b"PAR1") { "parquet" } else { "csv" };
    let path = folder.path().join(format!("{name}.{ending}"));
    let mut file = File::create(&path).await.map_err(unwritable)?;
    let (mut piece, mut bytes, mut checked_bytes) = (Some(first), 0_u64, 0);
    while let Some(content) = piece {
        bytes += content.len() as u64;
        if bytes > limit_bytes {
            return Err(too_large());
        }
        if bytes - checked_bytes >= SPACE_CHECK_BYTES {
            if !has_room(0) {
                return Err(ApiError::disk_full());
            }
            checked_bytes = bytes;
        }
        file.write_all(&content).await.map_err(unwritable)?;
        piece = next(context, &mut body).await?;
    }
    file.flush().await.map_err(unwritable)?;
    Ok(Received { folder, file: path })
}

async fn next(context: &Context, body: &mut BodyDataStream) -> Result<Option<axum::body::Bytes>, ApiError> {
    let Ok(piece) = timeout(context.options.body_timeout, body.next()).await else {
        let status = StatusCode::REQUEST_TIMEOUT;
        return Err(ApiError::with_status(status, "body_timeout", "the body did not arrive in time"));
    };
    piece.transpose().map_err(|_| ApiError::bad_request("the body broke off"))
}

fn too_large() -> ApiError {
    ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large or broke off")
}

fn busy() -> ApiError {
    let error = ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "mat_busy", "too many files arrive at once");
    ApiError { retry_after_s: Some(5), ..error }
}
