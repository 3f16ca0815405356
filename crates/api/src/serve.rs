//! What a request means: from a route and a method to a view of the copy, or a use case.
//!
//! Knows nothing of: connections, who the caller is and how that is known.

use crate::audit::Touched;
use crate::backup;
use crate::bindings::{self, Named};
use crate::body::Posted;
use crate::extensions;
use crate::fault::Fault;
use crate::front::{Api, Whole};
use crate::kinds::{Change, Item, Kind, View};
use crate::openapi;
use crate::policy;
use crate::query::{self, Wanted};
use crate::resources::{addresses, quotas, tags};
use crate::routes::{Route, VERSION};
use axum::body::Body;
use control::{Caller, Refused, State};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use model::ProjectId;
use serde_json::{Map, Value, json};

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// None is none at all, not even JSON's null.
    pub(crate) body: Option<Value>,
    /// Where the answer is no JSON.
    pub(crate) content: Option<Body>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// An answer, and what was changed on the way to it.
pub(crate) struct Served {
    pub(crate) answer: Result<Answer, Fault>,
    pub(crate) touched: Vec<Touched>,
}

impl Answer {
    pub(crate) fn of(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
            content: None,
            headers: Vec::new(),
        }
    }

    /// A message in the encoding of the watch protocol.
    pub(crate) fn protobuf(bytes: Vec<u8>) -> Self {
        let kind = HeaderValue::from_static("application/x-protobuf");
        Self::content(Body::from(bytes), vec![(header::CONTENT_TYPE, kind)])
    }

    pub(crate) fn content(content: Body, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self {
            status: StatusCode::OK,
            body: None,
            content: Some(content),
            headers,
        }
    }

    pub(crate) fn ok(body: Value) -> Self {
        Self::of(StatusCode::OK, body)
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: None,
            content: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn not_allowed(route: &Route) -> Self {
        let fault = Fault::method();
        let mut answer = Self::of(fault.status, fault.json());
        let methods: Vec<_> = route.methods().iter().map(ToString::to_string).collect();
        if let Ok(allow) = HeaderValue::try_from(methods.join(", ")) {
            answer.headers.push((header::ALLOW, allow));
        }
        answer
    }
}

impl Api {
    pub(crate) async fn serve(&self, whole: &Whole) -> Served {
        let mut touched = Vec::new();
        let answer = match &whole.who {
            Some(who) => self.serve_known(whole, who, &mut touched).await,
            None => Ok(self.serve_open(whole)),
        };
        Served { answer, touched }
    }

    fn serve_open(&self, whole: &Whole) -> Answer {
        if whole.route == Route::Document {
            return Answer::ok(openapi::document());
        }
        let link = json!({"rel": "self", "href": format!("{}/{VERSION}/", self.base(whole))});
        let version = json!({"id": VERSION, "status": "CURRENT", "links": [link]});
        Answer::ok(json!({"versions": [version]}))
    }

    async fn serve_known(
        &self,
        whole: &Whole,
        who: &Caller,
        touched: &mut Vec<Touched>,
    ) -> Result<Answer, Fault> {
        let get = whole.method == Method::GET;
        match &whole.route {
            Route::Versions | Route::Document => Ok(self.serve_open(whole)),
            Route::Version => Ok(self.version(whole)),
            Route::Extensions => Ok(Answer::ok(json!({"extensions": extensions::list()}))),
            Route::Extension(alias) => match extensions::find(alias) {
                Some(extension) => Ok(Answer::ok(json!({"extension": extension}))),
                None => Err(Fault::nothing_here()),
            },
            Route::All(kind) if get => self.list(whole, who, *kind).await,
            Route::All(kind) => self.create(whole, who, *kind, touched).await,
            Route::One(kind, id) if get => self.show(whole, who, *kind, id),
            Route::One(kind, id) if whole.method == Method::DELETE => {
                let before = self.seen(*kind, id);
                kind.delete(&self.control, change(whole, who)?, id).await?;
                touched.push(self.changed(*kind, id, before));
                Ok(Answer::empty(StatusCode::NO_CONTENT))
            }
            Route::One(kind, id) => {
                let body = kind.table().expected().put(&whole.body)?;
                let before = self.seen(*kind, id);
                let change = change(whole, who)?;
                kind.update(&self.control, change, id, body).await?;
                touched.push(self.changed(*kind, id, before));
                self.one(who, *kind, id, StatusCode::OK)
            }
            Route::Addresses(id, action) => {
                let kind = Kind::Addresses;
                let before = self.seen(kind, id);
                let how = (*action, &whole.body[..]);
                addresses::act(&self.control, change(whole, who)?, id, how).await?;
                touched.push(self.changed(kind, id, before));
                self.one(who, kind, id, StatusCode::OK)
            }
            Route::Bindings(port) => {
                bindings::serve(self, whole, who, (port, Named::All), touched).await
            }
            Route::Binding(port, host) => {
                bindings::serve(self, whole, who, (port, Named::One(host)), touched).await
            }
            Route::Activate(port, host) => {
                bindings::serve(self, whole, who, (port, Named::Activate(host)), touched).await
            }
            Route::Tags(kind, id) => self.tags(whole, who, (*kind, id), None, touched).await,
            Route::Tag(kind, id, tag) => {
                self.tags(whole, who, (*kind, id), Some(tag), touched).await
            }
            Route::Apply => policy::apply(self, whole, who, touched).await,
            Route::Inventory => policy::inventory(self, who),
            Route::Hosts => policy::hosts(self, who),
            Route::Status => policy::status(self, who),
            Route::Backup => backup::backup(self, who).await,
            Route::Quotas => self.quotas(who),
            Route::Quota(project) => self.quota(whole, who, project, touched).await,
            Route::QuotaDefault(project) => {
                owns(who, project)?;
                let limits = self.control.state().default_limits();
                Ok(Answer::ok(json!({"quota": quotas::shown_limits(limits)})))
            }
            Route::QuotaDetails(project) => {
                owns(who, project)?;
                let project = ProjectId::from(project.as_str());
                let details = quotas::details(&self.control.state(), &project);
                Ok(Answer::ok(json!({"quota": details})))
            }
        }
    }

    fn version(&self, whole: &Whole) -> Answer {
        let base = self.base(whole);
        let resource = |kind: Kind| {
            let table = kind.table();
            let href = format!("{base}/{VERSION}/{}", table.path);
            let link = json!({"rel": "self", "href": href});
            json!({"name": table.one, "collection": table.path, "links": [link]})
        };
        let resources: Value = Kind::ALL.into_iter().map(resource).collect();
        Answer::ok(json!({"resources": resources}))
    }

    async fn list(&self, whole: &Whole, who: &Caller, kind: Kind) -> Result<Answer, Fault> {
        let table = kind.table();
        let wanted = Wanted::read(&whole.query, table.attributes, self.limits.page)?;
        if kind == Kind::Group {
            self.default_group(who, &wanted).await?;
        }
        let base = format!("{}{}", self.base(whole), whole.path);
        let state = self.control.state();
        let view = self.view(&state, who);
        let items = view.all(kind, &wanted);
        let page = wanted.page(items, |item, name| item.read(&view, name), &base)?;
        let shown = page.items.into_iter();
        let shown = shown.map(|item| view.shown(item, |name| wanted.shows(name)));
        let mut answer = Map::from_iter([(table.many.to_owned(), shown.collect::<Value>())]);
        if !page.links.is_empty() {
            let link = |(rel, href): (&str, String)| json!({"rel": rel, "href": href});
            let links = page.links.into_iter().map(link).collect();
            answer.insert(format!("{}_links", table.many), links);
        }
        Ok(Answer::ok(Value::Object(answer)))
    }

    /// A project's first list makes its default group: of the caller's own, or of the one that an admin asks for.
    async fn default_group(&self, who: &Caller, wanted: &Wanted) -> Result<(), Fault> {
        let asked = ["project_id", "tenant_id"].into_iter();
        let asked = asked.filter_map(|name| wanted.values(name)?.first());
        let asked = asked
            .map(|project| ProjectId::from(project.as_str()))
            .next();
        let project = asked.unwrap_or_else(|| who.project.clone());
        if !who.owns(&project) || !control::ids::is_id(project.as_str()) {
            return Ok(());
        }
        if !self.control.state().projects.contains_key(&project) {
            self.control.default_group(who, &project).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        whole: &Whole,
        who: &Caller,
        kind: Kind,
        touched: &mut Vec<Touched>,
    ) -> Result<Answer, Fault> {
        let table = kind.table();
        let (bodies, many) = match table.expected().post(&whole.body)? {
            Posted::One(body) => (vec![body], false),
            Posted::Many(bodies) => (bodies, true),
        };
        let ids = kind
            .create(&self.control, change(whole, who)?, bodies)
            .await?;
        for id in &ids {
            touched.push(self.changed(kind, id, Value::Null));
        }
        let state = self.control.state();
        let view = self.view(&state, who);
        let items = ids.iter().filter_map(|id| view.find(kind, id));
        let mut shown: Vec<Value> = items.map(|item| view.shown(item, |_| true)).collect();
        let (name, value) = match many {
            true => (table.many, Value::Array(shown)),
            // Somebody may have deleted it by now.
            false => (table.one, shown.pop().unwrap_or_default()),
        };
        Ok(Answer::of(StatusCode::CREATED, json!({ name: value })))
    }

    fn show(&self, whole: &Whole, who: &Caller, kind: Kind, id: &str) -> Result<Answer, Fault> {
        let fields = query::pairs(&whole.query).into_iter();
        let fields = fields.filter(|(name, field)| name == "fields" && !field.is_empty());
        let fields: Vec<String> = fields.map(|(_, field)| field).collect();
        let shows = |name: &str| fields.is_empty() || fields.iter().any(|field| field == name);
        let state = self.control.state();
        let view = self.view(&state, who);
        let item = view.find(kind, id).ok_or_else(|| kind.not_found(id))?;
        Ok(Answer::ok(
            json!({ kind.table().one: view.shown(item, shows) }),
        ))
    }

    fn one(&self, who: &Caller, kind: Kind, id: &str, status: StatusCode) -> Result<Answer, Fault> {
        let state = self.control.state();
        let view = self.view(&state, who);
        let item = view.find(kind, id).ok_or_else(|| kind.not_found(id))?;
        let shown = view.shown(item, |_| true);
        Ok(Answer::of(status, json!({ kind.table().one: shown })))
    }

    async fn tags(
        &self,
        whole: &Whole,
        who: &Caller,
        (kind, id): (Kind, &str),
        tag: Option<&String>,
        touched: &mut Vec<Touched>,
    ) -> Result<Answer, Fault> {
        let action = match (&whole.method, tag) {
            (&Method::GET, None) => return self.shown_tags(who, kind, id),
            (&Method::GET, Some(tag)) => return self.has_tag(who, (kind, id), tag),
            (&Method::PUT, None) => tags::Action::Set(&whole.body),
            (&Method::PUT, Some(tag)) => tags::Action::Add(tag),
            (_, None) => tags::Action::Clear,
            (_, Some(tag)) => tags::Action::Remove(tag),
        };
        let before = self.seen(kind, id);
        tags::act(&self.control, change(whole, who)?, (kind, id), action).await?;
        touched.push(self.changed(kind, id, before));
        match action {
            tags::Action::Set(_) => self.shown_tags(who, kind, id),
            tags::Action::Add(_) => Ok(Answer::empty(StatusCode::CREATED)),
            tags::Action::Clear | tags::Action::Remove(_) => {
                Ok(Answer::empty(StatusCode::NO_CONTENT))
            }
        }
    }

    fn shown_tags(&self, who: &Caller, kind: Kind, id: &str) -> Result<Answer, Fault> {
        let tags = self.tags_of(who, kind, id)?;
        Ok(Answer::ok(json!({ "tags": tags })))
    }

    fn has_tag(&self, who: &Caller, (kind, id): (Kind, &str), tag: &str) -> Result<Answer, Fault> {
        let tags = self.tags_of(who, kind, id)?;
        let there = tags.as_array().into_iter().flatten().any(|has| has == tag);
        match there {
            true => Ok(Answer::empty(StatusCode::NO_CONTENT)),
            false => Err(Fault::from(Refused::TagNotFound { tag: tag.into() })),
        }
    }

    fn tags_of(&self, who: &Caller, kind: Kind, id: &str) -> Result<Value, Fault> {
        let state = self.control.state();
        let view = self.view(&state, who);
        let item = view.find(kind, id).ok_or_else(|| kind.not_found(id))?;
        Ok(item.read(&view, "tags"))
    }

    fn quotas(&self, who: &Caller) -> Result<Answer, Fault> {
        match who.is_admin() {
            true => {
                let quotas = quotas::all(&self.control.state());
                Ok(Answer::ok(json!({ "quotas": quotas })))
            }
            false => Err(Fault::from(Refused::NotAuthorized {
                action: "get_quota".to_owned(),
            })),
        }
    }

    async fn quota(
        &self,
        whole: &Whole,
        who: &Caller,
        project: &str,
        touched: &mut Vec<Touched>,
    ) -> Result<Answer, Fault> {
        let id = ProjectId::from(project);
        let shown = || {
            let limits = self.control.state().limits(&id);
            json!({"quota": quotas::shown_limits(limits)})
        };
        if whole.method == Method::GET {
            owns(who, project)?;
            return Ok(Answer::ok(shown()));
        }
        let before = shown();
        let answer = match whole.method {
            Method::DELETE => {
                self.control.delete_quota(who, project).await?;
                Answer::empty(StatusCode::NO_CONTENT)
            }
            _ => {
                let body = quotas::EXPECTED.put(&whole.body)?;
                quotas::update(&self.control, change(whole, who)?, project, body).await?;
                Answer::ok(shown())
            }
        };
        touched.push(Touched {
            kind: quotas::EXPECTED.one,
            id: project.to_owned(),
            before,
            after: shown(),
        });
        Ok(answer)
    }

    fn view<'a>(&'a self, state: &'a State, who: &'a Caller) -> View<'a> {
        View {
            state,
            who,
            enforcement: &*self.enforcement,
        }
    }

    /// For the audit log: all that there is to see; null if it isn't there.
    pub(crate) fn seen(&self, kind: Kind, id: &str) -> Value {
        let all_seeing = Caller {
            user: String::new(),
            project: ProjectId::from(""),
            role: control::Role::Admin,
        };
        let state = self.control.state();
        let view = self.view(&state, &all_seeing);
        let item = view.find(kind, id);
        // A group may have many rules, and each has its own lines.
        let shows = |name: &str| name != "security_group_rules";
        item.map_or(Value::Null, |item: Item<'_>| view.shown(item, shows))
    }

    pub(crate) fn changed(&self, kind: Kind, id: &str, before: Value) -> Touched {
        Touched {
            kind: kind.table().one,
            id: id.to_owned(),
            before,
            after: self.seen(kind, id),
        }
    }

    /// Where the client has found us, without a slash at the end.
    fn base(&self, whole: &Whole) -> String {
        if let Some(url) = &self.public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.secure { "https" } else { "http" };
        let host = whole.headers.get(header::HOST);
        let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        match host {
            Some(host) => format!("{scheme}://{host}"),
            None => String::new(),
        }
    }
}

fn change<'a>(whole: &Whole, who: &'a Caller) -> Result<Change<'a>, Fault> {
    let if_revision = if_match(&whole.headers)?;
    Ok(Change { who, if_revision })
}

/// `If-Match: revision_number=5`
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let Some(wanted) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let number = wanted.to_str().ok().and_then(|text| {
        let number = text.trim().strip_prefix("revision_number=")?;
        number.trim().parse().ok()
    });
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Fault::bad("If-Match: revision_number=NUMBER is expected")),
    }
}

/// Another project's quota isn't there for who is no admin.
fn owns(who: &Caller, project: &str) -> Result<(), Fault> {
    match who.owns(&ProjectId::from(project)) {
        true => Ok(()),
        false => {
            let project = crate::attribute::cut(project).to_owned();
            Err(Fault::from(Refused::QuotaNotFound(project)))
        }
    }
}
