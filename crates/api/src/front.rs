//! Where requests come in and answers go out: bounds, the request's id, who asks, the audit log.
//!
//! ```text
//! request: id -> route (404, 405) -> identity (401) -> body (408, 413) -> serve -> audit -> answer
//! ```
//! Invariants: a body is read only for who is known. What is carried out runs by itself: a client that goes, or a
//! request that takes too long, stops nothing half-way, and the audit line is written all the same.
//! Knows nothing of: what a request means (see serve.rs).

use crate::Enforcement;
use crate::audit::{Asked, Audit, Touched};
use crate::fault::Fault;
use crate::identity::Identity;
use crate::routes::Route;
use crate::serve::{Answer, Served};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use control::{Caller, Control, Copies};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{Instrument, debug, error, info_span};
use uuid::Uuid;

pub struct Api {
    pub control: Arc<Control>,
    pub identity: Identity,
    pub limits: Limits,
    pub audit: Audit,
    pub enforcement: Arc<dyn Enforcement>,
    /// Of the store, where it is a file of this server's own.
    pub copies: Option<Copies>,
    /// How clients see this server, where that isn't how it is asked: `https://network.example`.
    pub public_url: Option<String>,
    /// For links, without one: whether clients come by TLS.
    pub secure: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub body_bytes: usize,
    /// For a body to come in.
    pub body_time: Duration,
    /// For an answer, then.
    pub answer_time: Duration,
    /// For a copy of the store instead.
    pub copy_time: Duration,
    /// For a client to take some of it.
    pub taking_time: Duration,
    /// The longest page of a list: who wants more follows its link.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 * 1024 * 1024,
            body_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(60),
            copy_time: Duration::from_secs(600),
            taking_time: Duration::from_secs(30),
            page: 10_000,
        }
    }
}

/// What is left of a request once it has come in and is allowed to.
pub(crate) struct Whole {
    pub(crate) id: String,
    pub(crate) who: Option<Caller>,
    pub(crate) route: Route,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub fn router(api: Arc<Api>) -> Router {
    Router::new().fallback(move |request: Request<Body>| answer(api.clone(), request))
}

async fn answer(api: Arc<Api>, request: Request<Body>) -> Response<Body> {
    let began = Instant::now();
    let id = format!("req-{}", Uuid::new_v4());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = info_span!("request", id, %method, path);
    let answer = take(api, id.clone(), request)
        .instrument(span.clone())
        .await;
    let mut response = match answer {
        Ok(answer) => written(answer),
        Err(fault) => refusal(&fault),
    };
    let status = response.status().as_u16();
    let took_ms = began.elapsed().as_millis();
    span.in_scope(|| debug!(status, took_ms, "request answered"));
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-openstack-request-id", id);
    }
    response
}

async fn take(api: Arc<Api>, id: String, request: Request<Body>) -> Result<Answer, Fault> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let route = Route::of(path);
    let who = match &route {
        Some(route) if route.is_open() => None,
        // Who isn't known doesn't learn what there is.
        Some(_) => Some(api.identity.caller(&parts.headers).await?),
        None if path.starts_with("/v2.0") || path.starts_with("/portcullis") => {
            Some(api.identity.caller(&parts.headers).await?)
        }
        None => None,
    };
    let route = route.ok_or_else(Fault::nothing_here)?;
    if !route.methods().contains(&parts.method) {
        return Ok(Answer::not_allowed(&route));
    }
    let whole = Whole {
        id,
        who,
        route,
        path: path.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        method: parts.method,
        headers: parts.headers,
        body: read(body, &api.limits).await?,
    };
    let patience = match whole.route {
        Route::Backup => api.limits.copy_time,
        _ => api.limits.answer_time,
    };
    let carried_out = tokio::spawn(carry_out(api, whole).in_current_span());
    match timeout(patience, carried_out).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => {
            error!(%panicked, "a request has found a fault of this server");
            Err(Fault::internal())
        }
        Err(_) => Err(Fault::new(
            StatusCode::GATEWAY_TIMEOUT,
            STILL_AT_IT,
            "The request takes too long. It goes on: read before you try again.",
        )),
    }
}

/// The type of a 504 that is no trouble, only not the end: `portcullis apply` asks again.
pub const STILL_AT_IT: &str = "RequestGoesOn";

async fn read(body: Body, limits: &Limits) -> Result<Bytes, Fault> {
    let whole = Limited::new(body, limits.body_bytes).collect();
    match timeout(limits.body_time, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            let most = limits.body_bytes;
            Err(Fault::too_large(format!(
                "Request body is larger than {most} bytes."
            )))
        }
        Ok(Err(cause)) => Err(Fault::malformed(cause)),
        Err(_) => Err(Fault::slow()),
    }
}

async fn carry_out(api: Arc<Api>, whole: Whole) -> Result<Answer, Fault> {
    let Served { answer, touched } = api.serve(&whole).await;
    let changes = whole.method != Method::GET;
    if let (Some(who), true) = (&whole.who, changes) {
        api.audit(&whole, who, &answer, &touched);
    }
    answer
}

impl Api {
    fn audit(
        &self,
        whole: &Whole,
        who: &Caller,
        answer: &Result<Answer, Fault>,
        touched: &[Touched],
    ) {
        let (status, refusal) = match answer {
            Ok(answer) => (answer.status, None),
            Err(fault) => (fault.status, Some(fault.kind)),
        };
        let asked = Asked {
            request: &whole.id,
            who,
            method: &whole.method,
            path: &whole.path,
            status,
            refusal,
        };
        self.audit.write(&asked, touched);
    }
}

fn written(answer: Answer) -> Response<Body> {
    let mut response = Response::new(match (&answer.body, answer.content) {
        (Some(body), _) => Body::from(body.to_string()),
        (None, Some(content)) => content,
        (None, None) => Body::empty(),
    });
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if answer.body.is_some() {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
    }
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}

fn refusal(fault: &Fault) -> Response<Body> {
    let body: Option<Value> = Some(fault.json());
    let mut headers = Vec::new();
    if fault.status == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static("Keystone");
        headers.push((header::WWW_AUTHENTICATE, how));
    }
    written(Answer {
        status: fault.status,
        body,
        content: None,
        headers,
    })
}
