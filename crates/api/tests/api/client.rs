//! A client that believes nothing: each answer has a request id, and is what the OpenAPI document says.

use crate::schema;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpStream;

#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null if it is no JSON.
    pub(crate) body: Value,
    pub(crate) bytes: Bytes,
    asked: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let headers = Vec::new();
        Self { address, headers }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn says(self, user: &str, project: &str, role: &str) -> Self {
        self.with("x-user-id", user)
            .with("x-project-id", project)
            .with("x-roles", role)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    /// Below `/v2.0/`, unless it begins with a slash.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.send(method, path, body).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/v2.0/{path}"),
        };
        let mut request = Request::builder().method(method.clone()).uri(&path);
        request = request.header("host", self.address.to_string());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let asked = format!(
            "{method} {path} {}",
            String::from_utf8_lossy(&body[..body.len().min(2_000)])
        );
        let request = request.body(Full::new(body)).expect("it is a request");
        let stream = TcpStream::connect(self.address)
            .await
            .expect("the server listens");
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.expect("it is HTTP");
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{asked}: {error}"));
        let (head, body) = answer.into_parts();
        let bytes = body
            .collect()
            .await
            .expect("the answer is whole")
            .to_bytes();
        let kinds = ["application/x-protobuf", "application/octet-stream"];
        let is_other = |kind: &HeaderValue| kinds.iter().any(|other| kind == other);
        let other = head.headers.get("content-type").is_some_and(is_other);
        let body = match bytes.is_empty() || other {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{asked}: {e}")),
        };
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body,
            bytes,
            asked,
        };
        answer.is_well_formed(&method, &path);
        answer
    }

    /// The id of a new object.
    pub(crate) async fn make(&self, path: &str, one: &str, body: Value) -> String {
        let answer = self.post(path, json!({ one: body })).await.done(201);
        answer.body[one]["id"]
            .as_str()
            .expect("it has an id")
            .to_owned()
    }

    pub(crate) async fn group(&self, name: &str) -> String {
        self.make("security-groups", "security_group", json!({ "name": name }))
            .await
    }

    pub(crate) async fn network(&self, cidr: &str) -> String {
        let network = self.make("networks", "network", json!({"name": "n"})).await;
        let subnet = json!({"network_id": network, "ip_version": 4, "cidr": cidr});
        self.make("subnets", "subnet", subnet).await;
        network
    }

    /// The ids, or names, in a list.
    pub(crate) async fn listed(&self, path: &str, by: &str) -> Vec<String> {
        let answer = self.get(path).await.done(200);
        let list = answer.body.as_object().expect("it is an object");
        let (_, list) = list
            .iter()
            .find(|(name, _)| !name.ends_with("_links"))
            .expect("a list");
        let texts = list.as_array().expect("it is a list").iter();
        texts
            .map(|item| item[by].as_str().expect("it is text").to_owned())
            .collect()
    }
}

impl Answer {
    fn is_well_formed(&self, method: &Method, path: &str) {
        let id = self.headers.get("x-openstack-request-id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        assert!(
            id.starts_with("req-") && id.len() == 40,
            "{}: id {id}",
            self.asked
        );
        let conforms = schema::answer(method, path, self.status, &self.body);
        conforms.unwrap_or_else(|why| panic!("{}: {why}: {}", self.asked, self.body));
    }

    #[track_caller]
    pub(crate) fn done(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}: {}",
            self.asked,
            self.body
        );
        self
    }

    /// `what`: the type, and perhaps a part of the message behind a colon.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, what: &str) -> Self {
        let (kind, message) = what.split_once(": ").unwrap_or((what, ""));
        let error = &self.body["NeutronError"];
        let got = (
            self.status.as_u16(),
            error["type"].as_str().unwrap_or_default(),
        );
        assert_eq!(got, (status, kind), "{}: {}", self.asked, self.body);
        let text = error["message"].as_str().unwrap_or_default();
        assert!(text.contains(message), "{}: {text}", self.asked);
        self
    }

    pub(crate) fn message(&self) -> &str {
        self.body["NeutronError"]["message"]
            .as_str()
            .unwrap_or_default()
    }
}
