//! Login, keys and users of the original's API: `/auth`, `/keys`, `/users`. They are served where keys are required.

use crate::client::{Client, ClientError};
use crate::routes::escape;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, ClientError>;

/// What a key allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Make keys, with no more than these permissions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_key: bool,
    /// Make users.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_user: bool,
    /// `*`, `session` or `session.job`: define, write, read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manage: Vec<String>,
    /// Operate what is defined, write, read: keys of tokens have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operate: Vec<String>,
    /// Write, read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<String>,
    /// Read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
}

/// A key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its text, to be presented as `X-Api-Key` or as a bearer token.
    pub key: String,
    /// What it is for.
    #[serde(default)]
    pub label: Option<String>,
    /// What it allows.
    #[serde(default)]
    pub permissions: Permissions,
}

/// A user, as the original's API shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUser {
    /// Name.
    pub username: String,
    /// 0: an admin, 1: an application.
    pub user_type: i64,
    /// The key that a login gives.
    pub key: Option<String>,
}

/// A user to be made.
#[derive(Clone, Serialize)]
pub struct NewKeyUser {
    /// Name.
    pub username: String,
    /// Password.
    pub password: String,
    /// 0: an admin, 1: an application.
    pub user_type: i64,
    /// The key that a login gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Deserialize)]
struct ApiKey {
    api_key: Option<String>,
}

impl Client {
    /// The key of the user with this password; none: the user has no key. A wrong name or password is a 401, a daemon
    /// that requires no key of the caller a 404.
    pub async fn login(&self, user: &str, password: &str) -> Result<Option<String>> {
        let text = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
        let found: ApiKey = self.get_as("/auth", format!("Basic {text}")).await?;
        Ok(found.api_key)
    }

    /// A key, by its text or public id.
    pub async fn key(&self, key: &str) -> Result<Key> {
        self.get(&format!("/keys/{}", escape(key))).await
    }

    /// Texts of all keys.
    pub async fn keys(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<String>,
        }
        let found: Keys = self.get("/keys").await?;
        Ok(found.keys)
    }

    /// Makes a key; its text.
    pub async fn key_create(&self, permissions: &Permissions, label: Option<&str>) -> Result<String> {
        let mut body = json!({ "permissions": permissions });
        if let Some(label) = label {
            body["label"] = json!(label);
        }
        let made: ApiKey = self.post("/keys", &body).await?;
        made.api_key
            .ok_or_else(|| ClientError::Protocol("the new key is missing".to_owned()))
    }

    /// Revokes a key and the keys made with it.
    pub async fn key_delete(&self, key: &str) -> Result<()> {
        let _ok: Value = self.delete(&format!("/keys/{}", escape(key))).await?;
        Ok(())
    }

    /// Names of all users.
    pub async fn key_users(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Users {
            users: Vec<String>,
        }
        let found: Users = self.get("/users").await?;
        Ok(found.users)
    }

    /// A user with its key.
    pub async fn key_user(&self, name: &str) -> Result<KeyUser> {
        self.get(&format!("/users/{}", escape(name))).await
    }

    /// Makes a user.
    pub async fn key_user_create(&self, user: &NewKeyUser) -> Result<()> {
        let _ok: Value = self.post("/users", user).await?;
        Ok(())
    }

    /// Forgets a user.
    pub async fn key_user_delete(&self, name: &str) -> Result<()> {
        let _ok: Value = self.delete(&format!("/users/{}", escape(name))).await?;
        Ok(())
    }

    /// Gives a user another password.
    pub async fn key_user_password(&self, name: &str, password: &str) -> Result<()> {
        let body = json!({ "password": password });
        let path = format!("/users/{}/password", escape(name));
        let _ok: Value = self.put(&path, &body, None).await?;
        Ok(())
    }

    /// Gives a user another key, or none.
    pub async fn key_user_key(&self, name: &str, key: Option<&str>) -> Result<()> {
        let path = format!("/users/{}/key", escape(name));
        let _ok: Value = self.put(&path, &json!({ "key": key }), None).await?;
        Ok(())
    }
}
