//! What can be wrong with a request, and what its client is told.

use crate::live::LiveError;
use app_abi::{
    Body, BodyError, DatabankError, Response, StatusCode, SubscribeError,
    header::{ALLOW, HeaderValue, RETRY_AFTER},
};

/// Why a request isn't answered as it was meant.
pub enum Refusal {
    NoSuchPage,
    /// The path takes only these methods.
    OtherMethods(&'static str),
    Invalid(String),
    /// A change must say which revision it changes.
    NoRevision,
    Body(BodyError),
    Databank(DatabankError),
    Live(SubscribeError),
}

impl Refusal {
    /// The refusal where nothing takes this path with this method.
    pub fn of_path(path: &str) -> Self {
        match path {
            "/" | "/api/entries" => Self::OtherMethods("GET, HEAD, POST"),
            "/echo" => Self::OtherMethods("POST"),
            "/hello" | "/whoami" | "/page.css" | "/page.js" | "/live" | "/api/visits" | "/api/export" => {
                Self::OtherMethods("GET, HEAD")
            }
            _ if path.starts_with("/api/entries/") => Self::OtherMethods("GET, HEAD, PUT, DELETE"),
            _ => Self::NoSuchPage,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPage | Self::Databank(DatabankError::NotFound(_)) => StatusCode::NOT_FOUND,
            Self::OtherMethods(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRevision => StatusCode::PRECONDITION_REQUIRED,
            Self::Body(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid(_) | Self::Body(_) | Self::Databank(DatabankError::Invalid(_)) => StatusCode::BAD_REQUEST,
            Self::Databank(DatabankError::AlreadyExists(_)) => StatusCode::CONFLICT,
            Self::Databank(DatabankError::Conflict(_)) => StatusCode::PRECONDITION_FAILED,
            Self::Databank(DatabankError::Unavailable(_)) | Self::Live(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Gives an answer the status, and the header that belongs to it.
    pub fn apply(&self, mut answer: Response<Body>) -> Response<Body> {
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        match self {
            Self::OtherMethods(methods) => drop(headers.insert(ALLOW, HeaderValue::from_static(methods))),
            Self::Databank(DatabankError::Unavailable(_)) | Self::Live(_) => {
                drop(headers.insert(RETRY_AFTER, HeaderValue::from(1)));
            }
            _ => {}
        }
        answer
    }

    pub fn text(&self) -> String {
        match self {
            Self::NoSuchPage => "there is nothing here".to_owned(),
            Self::OtherMethods(methods) => format!("only {methods} can be done here"),
            Self::NoRevision => "say in If-Match which revision this is to replace".to_owned(),
            Self::Body(BodyError::Json(error)) => format!("the body is not as expected: {error}"),
            Self::Body(error) => error.to_string(),
            // The cause names servers and files, which are no client's business: it goes to the log.
            Self::Databank(DatabankError::Unavailable(_)) => "the guestbook is away, try again in a moment".to_owned(),
            Self::Databank(error) => error.to_string(),
            Self::Live(error) => error.to_string(),
            Self::Invalid(text) => text.clone(),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<DatabankError> for Refusal {
    fn from(error: DatabankError) -> Self {
        Self::Databank(error)
    }
}

impl From<LiveError> for Refusal {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Databank(error) => Self::Databank(error),
            LiveError::Subscribe(error) => Self::Live(error),
        }
    }
}
