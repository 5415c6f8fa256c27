//! Keys, users and the login of the original's API: `/auth`, `/keys…`, `/users…`.
//!
//! A key is named by its text or by its public id. Nobody hands on more than he has, and nobody touches what is more than
//! he is: a user's password is as good as the key behind it.

use crate::access::Access;
use crate::access::keyring::{KeyringError, New};
use crate::access::permissions::Permissions;
use crate::access::store::{Kind, Record, StoreError, User};
use crate::access::tokens::{check_password, may_touch};
use crate::http::Shared;
use crate::http::body::Raw;
use crate::view;
use axum::Router;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use hyper::StatusCode;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Characters of a label or a user's name at most.
const NAME_CHARS_MAX: usize = 128;

/// Bytes of a user's further members at most.
const EXTRA_BYTES_MAX: usize = 64 << 10;

/// The routes.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/auth", get(auth))
        .route("/keys", get(list).post(create))
        .route("/keys/{key}", get(show).delete(remove))
        .route("/users", get(list_users).post(create_user))
        .route(
            "/users/{user}",
            get(show_user).put(replace_user).delete(remove_user),
        )
        .route("/users/{user}/password", put(set_password))
        .route("/users/{user}/key", put(set_key))
}

/// A refusal in the form of the original's framework: the number, and the number in a word.
struct No(u16, String);

type Answer = Result<Response, No>;

impl No {
    fn new(status: u16) -> No {
        No(status, word(status).to_owned())
    }

    fn because(status: u16, reason: impl Into<String>) -> No {
        No(status, reason.into())
    }
}

/// The original's word for a status.
pub fn word(status: u16) -> &'static str {
    match status {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        409 => "conflict",
        429 => "busy",
        _ => "internal_error",
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = answer(
            status,
            &json!({"error": self.0, "reason": self.1, "errno": self.0}),
        );
        if self.0 == 401 {
            let basic = HeaderValue::from_static("Basic realm=\"gaffer\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, basic);
        }
        response
    }
}

impl From<KeyringError> for No {
    fn from(error: KeyringError) -> No {
        let status = match error {
            KeyringError::Store(StoreError::Taken(_)) => 409,
            KeyringError::NotFound(_) => 404,
            KeyringError::TooMany | KeyringError::Busy => 429,
            KeyringError::Store(_) | KeyringError::Io(_) => 500,
        };
        No::because(status, error.to_string())
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    (status, [(CONTENT_TYPE, kind)], body.to_string()).into_response()
}

fn ok(body: &Value) -> Response {
    answer(StatusCode::OK, body)
}

/// Keys and users are there when keys are required of somebody like the caller.
fn required(access: &Access) -> Result<(), No> {
    if !access.is_required() {
        return Err(No::because(
            403,
            "keys are not required: require_token is not set",
        ));
    }
    if access.is_nobody() {
        return Err(No::new(401));
    }
    Ok(())
}

fn object(body: &[u8]) -> Result<Map<String, Value>, No> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(No::because(400, "the body is not an object")),
        Err(error) => Err(No::because(400, format!("the body is not JSON: {error}"))),
    }
}

fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, No> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(No::because(400, format!("`{name}` is a text"))),
    }
}

/// The login: the key of the user with this name and password.
async fn auth(State(app): State<Shared>, Extension(access): Extension<Access>, headers: HeaderMap) -> Answer {
    if !access.is_required() {
        return Err(No::because(
            404,
            "keys are not required: require_token is not set",
        ));
    }
    let (name, password) = basic(&headers).ok_or(No::new(401))?;
    let user = app.keyring.login(&name, &password).await?.ok_or(No::new(401))?;
    let key = user.key.as_ref().and_then(|key| app.keyring.find(Kind::Key, key));
    let key = key.and_then(|key| app.keyring.text(&key));
    let mut response = ok(&json!({"api_key": key}));
    if let Some(mut value) = key.and_then(|key| HeaderValue::from_str(&key).ok()) {
        value.set_sensitive(true);
        response.headers_mut().insert(API_KEY, value);
    }
    Ok(response)
}

/// Name and password; the password may hold colons.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, coded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = data_encoding::BASE64.decode(coded.trim().as_bytes()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn wants(query: Option<&str>, option: &str) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| matches!(pair.split_once('='), Some((name, "true" | "1")) if name == option))
}

fn key_object(app: &Shared, record: &Record) -> Value {
    let mut object = json!({"key": shown(app, record), "permissions": record.may});
    if let (Some(label), Some(object)) = (&record.label, object.as_object_mut()) {
        object.insert("label".to_owned(), json!(label));
    }
    object
}

/// The text of a key; its id if the sealing key has been lost.
fn shown(app: &Shared, record: &Record) -> String {
    app.keyring.text(record).unwrap_or_else(|| record.id.to_string())
}

async fn list(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> Answer {
    required(&access)?;
    if !access.is_admin() {
        return Err(No::new(403));
    }
    let whole = wants(query.as_deref(), "include_keys");
    let keys = app.keyring.list(Kind::Key);
    let keys = keys.iter().map(|record| match whole {
        true => key_object(&app, record),
        false => json!(shown(&app, record)),
    });
    Ok(ok(&json!({"keys": keys.collect::<Vec<Value>>()})))
}

async fn create(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer {
    required(&access)?;
    if !access.may_create_key() {
        return Err(No::new(403));
    }
    let asked = object(&body)?;
    let may = match asked.get("permissions") {
        None | Some(Value::Null) => Permissions::default(),
        Some(value) if !value.is_object() => return Err(No::because(400, "`permissions` is an object")),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|error| No::because(400, format!("`permissions`: {error}")))?,
    };
    if let Some(more) = access.permissions().lacks(&may) {
        return Err(No::because(
            403,
            format!("nobody can give what he has not: {more}"),
        ));
    }
    let label = text(&asked, "label")?.map(|label| label.chars().take(NAME_CHARS_MAX).collect());
    let own = access.credential();
    let parent = match text(&asked, "parent")? {
        Some(parent) => Some(parent_of(&app, &access, &parent)?),
        None => own.map(|own| own.id.clone()),
    };
    let new = New {
        may,
        label,
        parent,
        by: access.actor().to_string(),
        expires: own.and_then(|own| own.expires),
        ..New::default()
    };
    let (record, key) = app.keyring.add(new).await?;
    tracing::info!(id = %record.id, by = %access.actor(), "key.created");
    let mut response = ok(&json!({"ok": true, "api_key": key}));
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let scheme = if app.live().tls.is_some() { "https" } else { "http" };
    let location = format!("{scheme}://{host}/keys/{key}");
    for (name, text) in [(API_KEY, key), (LOCATION, location)] {
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn parent_of(app: &Shared, access: &Access, parent: &str) -> Result<Arc<str>, No> {
    let found = app.keyring.find(Kind::Key, parent);
    let found = found.ok_or_else(|| No::because(400, "`parent` is no key here"))?;
    may_see(access, &found)?;
    Ok(found.id)
}

fn may_see(access: &Access, record: &Record) -> Result<(), No> {
    let own = access.credential().is_some_and(|own| own.id == record.id);
    let no_more = || access.may_create_key() && access.permissions().lacks(&record.may).is_none();
    if own || no_more() {
        Ok(())
    } else {
        Err(No::new(403))
    }
}

/// The key in a path.
fn find(app: &Shared, access: &Access, text: &str) -> Result<Record, No> {
    required(access)?;
    match app.keyring.find(Kind::Key, text) {
        Some(record) => may_see(access, &record).map(|()| record),
        None if access.may_create_key() => Err(No::new(404)),
        None => Err(No::new(403)),
    }
}

async fn show(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let record = find(&app, &access, &text)?;
    let mut object = key_object(&app, &record);
    if wants(query.as_deref(), "include_keys")
        && let Some(object) = object.as_object_mut()
    {
        let children = app.keyring.children(&record.id);
        let children: Vec<Value> = children.iter().map(|child| key_object(&app, child)).collect();
        object.insert("keys".to_owned(), json!(children));
    }
    Ok(ok(&object))
}

async fn remove(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(text): Path<String>,
) -> Answer {
    let record = find(&app, &access, &text)?;
    app.keyring.remove(&record.id).await?;
    tracing::info!(id = %record.id, by = %access.actor(), "key.revoked");
    Ok(ok(&json!({"ok": true})))
}

fn user_object(app: &Shared, user: &User) -> Value {
    let mut object: Map<String, Value> = serde_json::from_str(&user.extra).unwrap_or_default();
    let key = user.key.as_ref().and_then(|key| app.keyring.find(Kind::Key, key));
    object.insert("username".to_owned(), json!(user.name));
    object.insert("user_type".to_owned(), json!(user.kind));
    object.insert("key".to_owned(), json!(key.map(|key| shown(app, &key))));
    Value::Object(object)
}

async fn list_users(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> Answer {
    required(&access)?;
    if !access.is_admin() {
        return Err(No::new(403));
    }
    let whole = wants(query.as_deref(), "include_user") || wants(query.as_deref(), "include_users");
    let users = app.keyring.users();
    let users = users.iter().map(|user| match whole {
        true => user_object(&app, user),
        false => json!(user.name),
    });
    Ok(ok(&json!({"users": users.collect::<Vec<Value>>()})))
}

/// What a body says about a user, checked against what its sender may give.
struct Wanted {
    password: String,
    kind: i64,
    key: Option<Arc<str>>,
    extra: String,
}

impl Wanted {
    fn read(app: &Shared, access: &Access, mut asked: Map<String, Value>) -> Result<Wanted, No> {
        let password = text(&asked, "password")?.ok_or_else(|| No::because(400, "`password` is missing"))?;
        check_password(&password).map_err(|error| No::because(400, error.0.message))?;
        let kind = match asked.get("user_type") {
            None | Some(Value::Null) => 1,
            Some(kind) => kind
                .as_i64()
                .filter(|kind| [0, 1].contains(kind))
                .ok_or_else(|| No::because(400, "`user_type` is 0 or 1"))?,
        };
        if kind == 0 && !access.is_admin() {
            return Err(No::new(403));
        }
        let key = text(&asked, "key")?
            .map(|key| key_to_give(app, access, &key))
            .transpose()?;
        for own in ["username", "password", "user_type", "key"] {
            asked.remove(own);
        }
        let extra = Value::Object(asked).to_string();
        if extra.len() > EXTRA_BYTES_MAX {
            return Err(No::because(400, "the further members are too long"));
        }
        Ok(Wanted {
            password,
            kind,
            key,
            extra,
        })
    }
}

fn key_to_give(app: &Shared, access: &Access, key: &str) -> Result<Arc<str>, No> {
    let found = app.keyring.find(Kind::Key, key);
    let found = found.ok_or_else(|| No::because(400, "`key` is no key here"))?;
    match access.permissions().lacks(&found.may) {
        None => Ok(found.id),
        Some(more) => Err(No::because(
            403,
            format!("nobody can give what he has not: {more}"),
        )),
    }
}

async fn create_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Raw(body): Raw,
) -> Answer {
    required(&access)?;
    if !access.may_create_user() {
        return Err(No::new(403));
    }
    let asked = object(&body)?;
    let name = text(&asked, "username")?.filter(|name| is_name(name));
    let name = name.ok_or_else(|| No::because(400, "`username` is missing or no name"))?;
    let wanted = Wanted::read(&app, &access, asked)?;
    let user = User {
        name,
        password: String::new(),
        kind: wanted.kind,
        key: wanted.key,
        extra: wanted.extra,
        made: view::now(),
    };
    let name = user.name.clone();
    app.keyring.add_user(user, wanted.password).await?;
    tracing::info!(user = %name, by = %access.actor(), "user.created");
    Ok(ok(&json!({"ok": true})))
}

/// Any text that can stand in a path and in front of the colon of a login.
fn is_name(text: &str) -> bool {
    let fine = |c: char| !c.is_control() && !matches!(c, '/' | ':' | '?');
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && text.chars().all(fine)
}

fn find_user(app: &Shared, access: &Access, name: &str) -> Result<User, No> {
    required(access)?;
    match app.keyring.user(name) {
        Some(user) if may_touch(app, access, &user) => Ok(user),
        None if access.may_create_user() => Err(No::new(404)),
        _ => Err(No::new(403)),
    }
}

async fn show_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer {
    Ok(ok(&user_object(&app, &find_user(&app, &access, &name)?)))
}

async fn replace_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Raw(body): Raw,
) -> Answer {
    let old = find_user(&app, &access, &name)?;
    let mut asked = object(&body)?;
    if !access.may_create_user() {
        // Its own key may change its user, but give it neither another key nor another type.
        asked.insert("key".to_owned(), Value::Null);
        asked.insert("user_type".to_owned(), json!(1));
    }
    let wanted = Wanted::read(&app, &access, asked)?;
    let gives = access.may_create_user();
    let change = move |user: &mut User| {
        user.extra = wanted.extra;
        if gives {
            user.kind = wanted.kind;
            user.key = wanted.key;
        }
    };
    app.keyring
        .change_user(&old.name, Some(wanted.password), change)
        .await?;
    tracing::info!(user = %old.name, by = %access.actor(), "user.changed");
    Ok(ok(&json!({"ok": true})))
}

async fn remove_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer {
    let user = find_user(&app, &access, &name)?;
    app.keyring.remove_user(&user.name).await?;
    tracing::info!(user = %user.name, by = %access.actor(), "user.removed");
    Ok(ok(&json!({"ok": true})))
}

async fn set_password(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Raw(body): Raw,
) -> Answer {
    let user = find_user(&app, &access, &name)?;
    let password = text(&object(&body)?, "password")?;
    let password = password.ok_or_else(|| No::because(400, "`password` is missing"))?;
    check_password(&password).map_err(|error| No::because(400, error.0.message))?;
    app.keyring
        .change_user(&user.name, Some(password), |_| {})
        .await?;
    tracing::info!(user = %user.name, by = %access.actor(), "user.changed");
    Ok(ok(&json!({"ok": true})))
}

async fn set_key(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Raw(body): Raw,
) -> Answer {
    let user = find_user(&app, &access, &name)?;
    if !access.may_create_user() {
        return Err(No::new(403));
    }
    let asked = object(&body)?;
    if !asked.contains_key("key") {
        return Err(No::because(400, "`key` is missing"));
    }
    let key = text(&asked, "key")?
        .map(|key| key_to_give(&app, &access, &key))
        .transpose()?;
    app.keyring
        .change_user(&user.name, None, move |user| user.key = key)
        .await?;
    tracing::info!(user = %user.name, by = %access.actor(), "user.changed");
    Ok(ok(&json!({"ok": true})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d35_a_password_may_hold_colons() {
        let mut headers = HeaderMap::new();
        let coded = data_encoding::BASE64.encode(b"ana:a:b:");
        headers.insert(AUTHORIZATION, format!("Basic {coded}").parse().expect("a value"));
        assert_eq!(basic(&headers), Some(("ana".to_owned(), "a:b:".to_owned())));
        for wrong in ["Basic", "Basic !", "Bearer YTpi", "Basic YWI="] {
            headers.insert(AUTHORIZATION, wrong.parse().expect("a value"));
            assert_eq!(basic(&headers), None, "{wrong}");
        }
    }
}
