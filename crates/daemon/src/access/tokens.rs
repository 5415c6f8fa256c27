//! `/v1/tokens` and `/v1/users`.

use super::Access;
use super::keyring::{KeyringError, New};
use super::permissions::{Permissions, Target, Targets};
use super::store::{Kind, Record, StoreError, User as StoredUser};
use crate::http::Shared;
use crate::http::body::Json;
use crate::http::query::{self, Path};
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::Extension;
use axum::extract::State;
use gaffer_api::access::{NewToken, PasswordRequest, Token, TokenRequest, TokenScope, User, UserRequest};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_core::name::Name;
use hyper::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a password at most: each is hashed whole.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// The routes.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, remove))
        .routes(routes!(users, create_user))
        .routes(routes!(show_user, set_password, remove_user))
}

/// All tokens, oldest first.
#[utoipa::path(get, path = "/v1/tokens", tag = "access",
    responses((status = 200, body = Vec<Token>), (status = "default", body = ErrorBody)))]
async fn list(State(app): State<Shared>) -> Answer<Json<Vec<Token>>> {
    Ok(Json(app.keyring.list(Kind::Token).iter().map(token).collect()))
}

/// Makes a token. Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "access", request_body = TokenRequest,
    responses((status = 201, body = NewToken), (status = "default", body = ErrorBody)))]
async fn create(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Json(request): Json<TokenRequest>,
) -> Answer<(StatusCode, Json<NewToken>)> {
    Name::parse(&request.name).map_err(|error| Refusal::new(Code::BadName, error.to_string()))?;
    let may = permissions(request.scope, &request.jobs)?;
    hands_on(&access, &may)?;
    let own = access.credential();
    let wanted = match request.expires.as_deref() {
        None => None,
        Some(text) => Some(view::now().plus(query::duration(text)?)),
    };
    // What is made with a credential ends with it.
    let expires = [wanted, own.and_then(|own| own.expires)]
        .into_iter()
        .flatten()
        .min();
    let new = New {
        name: Some(request.name),
        scope: Some(word(request.scope).to_owned()),
        may,
        parent: own.map(|own| own.id.clone()),
        by: access.actor().to_string(),
        expires,
        label: None,
    };
    let (record, text) = app.keyring.add(new).await?;
    tracing::info!(id = %record.id, by = %access.actor(), "token.created");
    let answer = NewToken {
        token: text,
        about: token(&record),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// A token, by name or id; a token may look at itself.
#[utoipa::path(get, path = "/v1/tokens/{name}", tag = "access", params(("name" = String, Path)),
    responses((status = 200, body = Token), (status = "default", body = ErrorBody)))]
async fn show(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer<Json<Token>> {
    Ok(Json(token(&find(&app, &access, &name)?)))
}

/// Revokes a token and what was made with it; their live streams end. A token may revoke itself.
#[utoipa::path(delete, path = "/v1/tokens/{name}", tag = "access", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn remove(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let record = find(&app, &access, &name)?;
    app.keyring.remove(&record.id).await?;
    tracing::info!(id = %record.id, by = %access.actor(), "token.revoked");
    Ok(StatusCode::NO_CONTENT)
}

fn find(app: &Shared, access: &Access, name: &str) -> Answer<Record> {
    let found = app.keyring.find(Kind::Token, name);
    let own = |record: &Record| access.credential().is_some_and(|own| own.id == record.id);
    match found {
        Some(record) if access.is_admin() || own(&record) => Ok(record),
        _ if !access.is_admin() => Err(refused(access, "admin")),
        _ => Err(not_found("token")),
    }
}

/// All users, oldest first.
#[utoipa::path(get, path = "/v1/users", tag = "access",
    responses((status = 200, body = Vec<User>), (status = "default", body = ErrorBody)))]
async fn users(State(app): State<Shared>) -> Answer<Json<Vec<User>>> {
    Ok(Json(
        app.keyring.users().iter().map(|one| user(&app, one)).collect(),
    ))
}

/// Makes a user with a key.
#[utoipa::path(post, path = "/v1/users", tag = "access", request_body = UserRequest,
    responses((status = 201, body = User), (status = "default", body = ErrorBody)))]
async fn create_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Json(request): Json<UserRequest>,
) -> Answer<(StatusCode, Json<User>)> {
    Name::parse(&request.name).map_err(|error| Refusal::new(Code::BadName, error.to_string()))?;
    check_password(&request.password)?;
    let may = permissions(request.scope, &request.jobs)?;
    hands_on(&access, &may)?;
    if app.keyring.user(&request.name).is_some() {
        return Err(KeyringError::from(StoreError::Taken(request.name)).into());
    }
    let new = New {
        may,
        by: access.actor().to_string(),
        parent: access.credential().map(|own| own.id.clone()),
        expires: access.credential().and_then(|own| own.expires),
        label: Some(format!("key of {}", request.name)),
        ..New::default()
    };
    let (key, _) = app.keyring.add(new).await?;
    let made = StoredUser {
        name: request.name,
        password: String::new(),
        kind: i64::from(!key.may.admin),
        key: Some(key.id.clone()),
        extra: "{}".to_owned(),
        made: view::now(),
    };
    if let Err(error) = app.keyring.add_user(made.clone(), request.password).await {
        app.keyring.remove(&key.id).await?;
        return Err(error.into());
    }
    tracing::info!(user = %made.name, by = %access.actor(), "user.created");
    Ok((StatusCode::CREATED, Json(user(&app, &made))))
}

/// A user; a user's key may look at its user.
#[utoipa::path(get, path = "/v1/users/{name}", tag = "access", params(("name" = String, Path)),
    responses((status = 200, body = User), (status = "default", body = ErrorBody)))]
async fn show_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer<Json<User>> {
    Ok(Json(user(&app, &find_user(&app, &access, &name)?)))
}

/// Gives a user another password; a user's key may do so for its user.
#[utoipa::path(put, path = "/v1/users/{name}", tag = "access", params(("name" = String, Path)),
    request_body = PasswordRequest,
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn set_password(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Json(request): Json<PasswordRequest>,
) -> Answer<StatusCode> {
    find_user(&app, &access, &name)?;
    check_password(&request.password)?;
    app.keyring
        .change_user(&name, Some(request.password), |_| {})
        .await?;
    tracing::info!(user = %name, by = %access.actor(), "user.changed");
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a user and its key.
#[utoipa::path(delete, path = "/v1/users/{name}", tag = "access", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn remove_user(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let found = find_user(&app, &access, &name)?;
    if let Some(key) = &found.key
        && app.keyring.find(Kind::Key, key).is_some()
    {
        app.keyring.remove(key).await?;
    }
    app.keyring.remove_user(&name).await?;
    tracing::info!(user = %name, by = %access.actor(), "user.removed");
    Ok(StatusCode::NO_CONTENT)
}

fn find_user(app: &Shared, access: &Access, name: &str) -> Answer<StoredUser> {
    let found = app.keyring.user(name);
    match found {
        Some(found) if may_touch(app, access, &found) => Ok(found),
        None if access.is_admin() => Err(not_found("user")),
        _ => Err(refused(access, "admin")),
    }
}

/// A user's own key may look at it and change it. Whoever makes users may touch those that are not more than he is: a
/// password is as good as the key behind it.
pub fn may_touch(app: &Shared, access: &Access, user: &StoredUser) -> bool {
    if access.is_admin() {
        return true;
    }
    let own = access
        .credential()
        .is_some_and(|own| user.key.as_ref() == Some(&own.id));
    let key = user.key.as_ref().and_then(|key| app.keyring.find(Kind::Key, key));
    let no_more = user.kind != 0 && key.is_none_or(|key| access.permissions().lacks(&key.may).is_none());
    own || (access.may_create_user() && no_more)
}

/// A password that can be one.
pub fn check_password(password: &str) -> Answer<()> {
    match password.len() {
        1..=PASSWORD_BYTES_MAX => Ok(()),
        _ => Err(Refusal::new(
            Code::BadValue,
            format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes"),
        )),
    }
}

fn refused(access: &Access, what: &str) -> Refusal {
    if access.is_nobody() {
        return Refusal::new(Code::Unauthorized, "this needs a token");
    }
    Refusal::new(
        Code::Forbidden,
        format!("{} may not do this: it needs {what}", access.actor()),
    )
}

fn not_found(what: &str) -> Refusal {
    Refusal::new(Code::CredentialNotFound, format!("there is no such {what}"))
}

fn hands_on(access: &Access, may: &Permissions) -> Answer<()> {
    match access.permissions().lacks(may) {
        None => Ok(()),
        Some(more) => Err(Refusal::new(
            Code::Forbidden,
            format!("{} cannot give what it has not: {more}", access.actor()),
        )),
    }
}

/// A scope on jobs as permissions.
pub fn permissions(scope: TokenScope, jobs: &[String]) -> Answer<Permissions> {
    let targets: Result<Vec<Target>, _> = jobs.iter().map(|text| Target::parse(text)).collect();
    let mut targets = targets.map_err(|error| Refusal::new(Code::BadName, format!("`for`: {error}")))?;
    if targets.len() > 100 {
        return Err(Refusal::new(Code::BadValue, "`for` has at most 100 entries"));
    }
    if targets.is_empty() {
        if scope == TokenScope::Admin {
            return Ok(Permissions::admin());
        }
        targets.push(Target::All);
    }
    let mut may = Permissions::default();
    let list = match scope {
        TokenScope::Read => &mut may.read,
        TokenScope::Operate => &mut may.operate,
        TokenScope::Admin => &mut may.manage,
    };
    *list = Targets(targets);
    Ok(may)
}

fn word(scope: TokenScope) -> &'static str {
    match scope {
        TokenScope::Read => "read",
        TokenScope::Operate => "operate",
        TokenScope::Admin => "admin",
    }
}

fn token(record: &Record) -> Token {
    let (scope, list) = match record.scope.as_deref() {
        Some("read") => (TokenScope::Read, &record.may.read),
        Some("operate") => (TokenScope::Operate, &record.may.operate),
        _ => (TokenScope::Admin, &record.may.manage),
    };
    let jobs: Vec<String> = list.0.iter().map(Target::to_string).collect();
    Token {
        name: record.name.clone().unwrap_or_default(),
        id: record.id.to_string(),
        scope,
        jobs: if jobs == ["*"] { Vec::new() } else { jobs },
        created_by: record.made_by.clone(),
        created_at: view::time(record.made),
        expires_at: record.expires.map(view::time),
    }
}

fn user(app: &Shared, user: &StoredUser) -> User {
    let key = user.key.as_ref().and_then(|key| app.keyring.find(Kind::Key, key));
    User {
        name: user.name.clone(),
        admin: key.is_some_and(|key| key.may.admin),
        key: user.key.as_ref().map(ToString::to_string),
        created_at: view::time(user.made),
    }
}

impl From<KeyringError> for Refusal {
    fn from(error: KeyringError) -> Refusal {
        let text = error.to_string();
        let code = match error {
            KeyringError::Store(StoreError::Taken(_)) => Code::NameTaken,
            KeyringError::Store(_) => Code::StoreFailed,
            KeyringError::TooMany | KeyringError::Busy => Code::Busy,
            KeyringError::NotFound(_) => Code::CredentialNotFound,
            KeyringError::Io(_) => Code::Internal,
        };
        Refusal::new(code, text)
    }
}
