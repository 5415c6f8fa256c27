//! Tokens and users: `/v1/tokens`, `/v1/users`.

use crate::client::{Client, ClientError};
use crate::routes::escape;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

type Result<T> = std::result::Result<T, ClientError>;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenScope {
    /// See state, output, events.
    Read,
    /// Also write to inputs, start, stop, scale, signal what is defined.
    Operate,
    /// Also define and remove jobs, which means to run any program; without `for` all that the daemon's user may do.
    Admin,
}

/// A token; its text is shown once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// Public id: names it in logs, allows nothing.
    pub id: String,
    /// What it allows.
    pub scope: TokenScope,
    /// On which jobs: `shop`, `shop.web`, `shop.*`; empty: on all.
    #[serde(rename = "for", default)]
    pub jobs: Vec<String>,
    /// By whom it was made.
    pub created_by: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; none: it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A token that was just made.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// The text to present as `Authorization: Bearer`; it is not shown again.
    pub token: String,
    /// What it is.
    #[serde(flatten)]
    pub about: Token,
}

/// What a token is to be.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// A name that is not taken.
    pub name: String,
    /// What it allows.
    pub scope: TokenScope,
    /// On which jobs; empty: on all.
    #[serde(rename = "for", default)]
    pub jobs: Vec<String>,
    /// How long it lives: `30d`; none: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A user, who logs in with a password to get a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Name.
    pub name: String,
    /// Is its key one for everything?
    pub admin: bool,
    /// Public id of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}

/// What a user is to be; it gets a key that allows what a token of this scope would.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// A name that is not taken.
    pub name: String,
    /// Password.
    pub password: String,
    /// What its key allows.
    pub scope: TokenScope,
    /// On which jobs; empty: on all.
    #[serde(rename = "for", default)]
    pub jobs: Vec<String>,
}

/// A new password.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// It.
    pub password: String,
}

impl Client {
    /// All tokens.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        self.get("/v1/tokens").await
    }

    /// Makes a token.
    pub async fn token_create(&self, request: &TokenRequest) -> Result<NewToken> {
        self.post("/v1/tokens", request).await
    }

    /// A token, by name or id.
    pub async fn token(&self, name: &str) -> Result<Token> {
        self.get(&format!("/v1/tokens/{}", escape(name))).await
    }

    /// Revokes a token; its live streams end.
    pub async fn token_remove(&self, name: &str) -> Result<()> {
        self.delete(&format!("/v1/tokens/{}", escape(name))).await
    }

    /// All users.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.get("/v1/users").await
    }

    /// Makes a user and its key.
    pub async fn user_create(&self, request: &UserRequest) -> Result<User> {
        self.post("/v1/users", request).await
    }

    /// A user.
    pub async fn user(&self, name: &str) -> Result<User> {
        self.get(&format!("/v1/users/{}", escape(name))).await
    }

    /// Gives a user another password.
    pub async fn user_password(&self, name: &str, password: &str) -> Result<()> {
        let request = PasswordRequest {
            password: password.to_owned(),
        };
        self.put(&format!("/v1/users/{}", escape(name)), &request, None)
            .await
    }

    /// Forgets a user; its key goes, too.
    pub async fn user_remove(&self, name: &str) -> Result<()> {
        self.delete(&format!("/v1/users/{}", escape(name))).await
    }
}
