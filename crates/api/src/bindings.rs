//! Below `ports/{id}/bindings`, for admins: where a port is, and where a live migration takes it to.
//!
//! ```text
//! GET, POST          ports/{id}/bindings
//! GET, PUT, DELETE   ports/{id}/bindings/{host}
//! PUT                ports/{id}/bindings/{host}/activate    without a body
//! ```
//! Knows nothing of: what a binding means.

use crate::audit::Touched;
use crate::body::Posted;
use crate::fault::Fault;
use crate::front::{Api, Whole};
use crate::kinds::Kind;
use crate::query::Wanted;
use crate::resources::bindings::{EXPECTED, asked, read, shown_as};
use crate::serve::Answer;
use control::Caller;
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// What a request's path names of a port.
#[derive(Clone, Copy)]
pub(crate) enum Named<'a> {
    All,
    One(&'a str),
    Activate(&'a str),
}

/// A change is audited as one of the port.
pub(crate) async fn serve(
    api: &Api,
    whole: &Whole,
    who: &Caller,
    (port, named): (&str, Named<'_>),
    touched: &mut Vec<Touched>,
) -> Result<Answer, Fault> {
    match (&whole.method, named) {
        (&Method::GET, Named::All) => return list(api, whole, who, port),
        (&Method::GET, Named::One(host)) => return one(api, who, port, host, StatusCode::OK),
        _ => {}
    }
    let control = &api.control;
    let before = api.seen(Kind::Port, port);
    let answer = match (&whole.method, named) {
        (_, Named::All) => {
            let body = match EXPECTED.post(&whole.body)? {
                Posted::One(body) => body,
                Posted::Many(_) => return Err(Fault::bad("One binding at a time is possible")),
            };
            let host = body.text_or_empty("host");
            let created = control.create_binding(who, port, &host, asked(&body)?);
            created.await?;
            one(api, who, port, &host, StatusCode::CREATED)
        }
        (_, Named::Activate(host)) => {
            control.activate_binding(who, port, host).await?;
            one(api, who, port, host, StatusCode::OK)
        }
        (&Method::DELETE, Named::One(host)) => {
            control.delete_binding(who, port, host).await?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        (_, Named::One(host)) => {
            let body = EXPECTED.put(&whole.body)?;
            let updated = control.update_binding(who, port, host, asked(&body)?);
            updated.await?;
            one(api, who, port, host, StatusCode::OK)
        }
    };
    touched.push(api.changed(Kind::Port, port, before));
    answer
}

fn list(api: &Api, whole: &Whole, who: &Caller, port: &str) -> Result<Answer, Fault> {
    let wanted = Wanted::read(&whole.query, EXPECTED.attributes, api.limits.page)?;
    let state = api.control.state();
    let bindings = state.bindings_of(who, port)?.into_iter();
    let bindings = bindings.filter(|on| wanted.matches(|name| read(*on, name)));
    let bindings = bindings.map(|on| shown_as(on, |name| wanted.shows(name)));
    Ok(Answer::ok(
        json!({ EXPECTED.many: bindings.collect::<Value>() }),
    ))
}

fn one(
    api: &Api,
    who: &Caller,
    port: &str,
    host: &str,
    status: StatusCode,
) -> Result<Answer, Fault> {
    let state = api.control.state();
    let on = state.binding_of(who, port, host)?;
    Ok(Answer::of(
        status,
        json!({ EXPECTED.one: shown_as(on, |_| true) }),
    ))
}
