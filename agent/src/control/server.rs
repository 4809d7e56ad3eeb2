//! The agent's side of the control socket. It asks the agent's loop, which alone knows and changes the state.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use super::api::{Explain, Explanation, Refusal, SetOverride, Status};

/// What the agent's loop is asked, with where the answer goes.
#[derive(Debug)]
pub enum Command {
    /// Tell everything.
    Status(oneshot::Sender<Box<Status>>),
    /// Set an override or take it back.
    Set(SetOverride, oneshot::Sender<Result<(), String>>),
    /// Explain an answer.
    Explain(Explain, oneshot::Sender<Result<Explanation, String>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
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
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    make().map_err(|source| ControlError::Bind { path: path.to_owned(), source })
}

/// Serves until its task is dropped.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/override", put(set))
        .route("/v1/explain", post(explain))
        .route("/v1/reload", post(reload))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "no such path".to_owned()))
        .with_state(commands);
    axum::serve(listener, router).await
}

type Loop = State<mpsc::Sender<Command>>;

async fn status(State(commands): Loop) -> Response {
    match ask(&commands, Command::Status).await {
        Some(status) => Json(status).into_response(),
        None => stopping(),
    }
}

async fn set(State(commands): Loop, order: Result<Json<SetOverride>, JsonRejection>) -> Response {
    match order {
        Ok(Json(order)) => outcome(ask(&commands, |reply| Command::Set(order, reply)).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn explain(State(commands): Loop, question: Result<Json<Explain>, JsonRejection>) -> Response {
    match question {
        Ok(Json(question)) => outcome(ask(&commands, |reply| Command::Explain(question, reply)).await),
        Err(rejection) => refuse(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

async fn reload(State(commands): Loop) -> Response {
    outcome(ask(&commands, Command::Reload).await)
}

async fn ask<T>(commands: &mpsc::Sender<Command>, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
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
