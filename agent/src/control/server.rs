//! The agent's side of the control socket. It asks the agent's loop, which alone knows and changes the state.

use std::{
    convert::Infallible,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::stream;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
};

use super::{
    api::{
        Drain, Explain, ExplainPacket, ExplainedPacket, Explanation, Fenced, InstanceRow, Refusal, SetOverride, Status,
        Swap,
    },
    orders,
};
use crate::{
    link::message::Response as PeerResponse,
    replication::{self, Comparing, Comparison},
};

/// What the agent's loop is asked, with where the answer goes.
#[derive(Debug)]
pub enum Command {
    /// Tell everything.
    Status(oneshot::Sender<Box<Status>>),
    /// Tell how the database stands. `None`: none is configured.
    Database(oneshot::Sender<Option<replication::Status>>),
    /// Compare its tables with a peer's; the answer is where it says how far it is. `None`: no database is configured.
    Compare(Comparison, oneshot::Sender<Option<mpsc::Receiver<Comparing>>>),
    /// Let no more be written to the database's tables at any site, before a schema change.
    Fence(oneshot::Sender<Result<Fenced, String>>),
    /// Set an override or take it back.
    Set(SetOverride, oneshot::Sender<Result<(), String>>),
    /// Tell every resource at every site.
    Instances(oneshot::Sender<Vec<InstanceRow>>),
    /// Take a resource or make its roles as configured, or have another site do so.
    Swap(Swap, oneshot::Sender<Result<Asking, String>>),
    /// Drain a site or take that back; the answer says that it is stored there.
    Drain(Drain, oneshot::Sender<Result<(), String>>),
    /// Explain an answer.
    Explain(Explain, oneshot::Sender<Result<Explanation, String>>),
    /// Explain what would become of a packet.
    ExplainPacket(ExplainPacket, oneshot::Sender<Result<ExplainedPacket, String>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
}

/// Who carries out an order to swap.
#[derive(Debug)]
pub struct Asking {
    /// The site.
    pub to: String,
    /// Who holds the resource then.
    pub holder: Option<String>,
    /// Where its answer comes: what came of it, not that others have adopted it.
    pub answer: oneshot::Receiver<Result<PeerResponse, String>>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers on it.
    #[error("another agent answers on {0}: stop it, or set [agent] control to another path")]
    Taken(PathBuf),
    /// It cannot be made.
    #[error(
        "cannot make the control socket {path}: {source}; its directory must be writable, or set [agent] control to another path"
    )]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the socket, for its owner and group only. A socket that nobody answers on is a dead agent's, and replaced.
pub fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ControlError::Taken(path.to_owned()));
    }
    let make = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("something else has this name, which is no socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    make().map_err(|source| ControlError::Bind { path: path.to_owned(), source })
}

/// The agent's loop, as the handlers see it.
#[derive(Clone, Debug)]
pub struct Loop {
    /// What it is asked.
    pub commands: mpsc::Sender<Command>,
    /// Changes whenever it has acted.
    pub acted: watch::Receiver<u64>,
}

impl Loop {
    /// `None`: it is stopping.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Serves until its task is dropped.
pub async fn serve(listener: UnixListener, agent: Loop) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/database", get(database))
        .route("/v1/database/compare", post(compare))
        .route("/v1/database/fence", post(fence))
        .route("/v1/override", put(set))
        .route("/v1/instances", get(instances))
        .route("/v1/swap", post(swap))
        .route("/v1/drain", post(drain))
        .route("/v1/explain", post(explain))
        .route("/v1/explain-packet", post(explain_packet))
        .route("/v1/reload", post(reload))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "no such path".to_owned()))
        .with_state(agent);
    axum::serve(listener, router).await
}

async fn status(State(agent): State<Loop>) -> Response {
    match agent.ask(Command::Status).await {
        Some(status) => Json(status).into_response(),
        None => stopping(),
    }
}

async fn database(State(agent): State<Loop>) -> Response {
    outcome(agent.ask(Command::Database).await.map(|status| status.ok_or_else(no_database)))
}

async fn fence(State(agent): State<Loop>) -> Response {
    outcome(agent.ask(Command::Fence).await)
}

/// Answers with a line of JSON for everything that the comparison says, as it says it. It ends with the connection.
async fn compare(State(agent): State<Loop>, order: Result<Json<Comparison>, JsonRejection>) -> Response {
    let order = match order {
        Ok(Json(order)) => order,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    match agent.ask(|reply| Command::Compare(order, reply)).await {
        Some(Some(progress)) => Body::from_stream(stream::unfold(progress, async |mut progress| {
            let mut line = serde_json::to_vec(&progress.recv().await?).ok()?;
            line.push(b'\n');
            Some((Ok::<_, Infallible>(line), progress))
        }))
        .into_response(),
        Some(None) => refuse(StatusCode::UNPROCESSABLE_ENTITY, no_database()),
        None => stopping(),
    }
}

pub(crate) fn no_database() -> String {
    "no database is configured: [database] in the configuration names its file".to_owned()
}

async fn instances(State(agent): State<Loop>) -> Response {
    match agent.ask(Command::Instances).await {
        Some(rows) => Json(rows).into_response(),
        None => stopping(),
    }
}

async fn set(State(agent): State<Loop>, order: Result<Json<SetOverride>, JsonRejection>) -> Response {
    match order {
        Ok(Json(order)) => outcome(agent.ask(|reply| Command::Set(order, reply)).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn swap(State(agent): State<Loop>, order: Result<Json<Swap>, JsonRejection>) -> Response {
    match order {
        Ok(Json(order)) => outcome(orders::swap(agent, order).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn drain(State(agent): State<Loop>, order: Result<Json<Drain>, JsonRejection>) -> Response {
    match order {
        Ok(Json(order)) => outcome(orders::drain(agent, order).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn explain(State(agent): State<Loop>, question: Result<Json<Explain>, JsonRejection>) -> Response {
    match question {
        Ok(Json(question)) => outcome(agent.ask(|reply| Command::Explain(question, reply)).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn explain_packet(State(agent): State<Loop>, question: Result<Json<ExplainPacket>, JsonRejection>) -> Response {
    match question {
        Ok(Json(question)) => outcome(agent.ask(|reply| Command::ExplainPacket(question, reply)).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn reload(State(agent): State<Loop>) -> Response {
    outcome(agent.ask(Command::Reload).await)
}

fn outcome(answer: Option<Result<impl serde::Serialize, String>>) -> Response {
    match answer {
        Some(Ok(value)) => Json(value).into_response(),
        Some(Err(error)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, error),
        None => stopping(),
    }
}

fn stopping() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping".to_owned())
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(Refusal { error })).into_response()
}
