//! Who may do what: the identity of a request, credentials, users.
//!
//! Every request carries an [`Access`] as an extension. It comes from a credential that the request presents (a native
//! token or a key of the original's API, which are one kind of thing with two ways to write down what it allows), or
//! from the peer itself: whom the kernel says to be the daemon's own user or root is an admin where no credential is
//! required.

pub mod admin;
pub mod identify;
pub mod import;
pub mod keyring;
pub mod permissions;
pub mod routes;
pub mod secret;
pub mod slot;
pub mod store;
pub mod tokens;

use crate::peer::Peer;
use gaffer_core::name::JobId;
use gaffer_core::time::Wall;
use permissions::{Permissions, Strength};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Longest sleep at once towards an expiry that is far away.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the sender of a request may do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    actor: Arc<str>,
    may: Permissions,
    required: bool,
    credential: Option<Presented>,
}

/// The credential that an access comes from.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Its public id.
    pub id: Arc<str>,
    /// When it ends by itself.
    pub expires: Option<Wall>,
    /// True once it is revoked; an error of the channel means the same.
    pub revoked: watch::Receiver<bool>,
}

impl Access {
    /// A peer that needs no credential: an admin.
    pub fn trusted(peer: &Peer, required: bool) -> Access {
        Access(Arc::new(Inner {
            actor: peer.actor(),
            may: Permissions::admin(),
            required,
            credential: None,
        }))
    }

    /// A peer that has shown nothing yet: routes that need nothing, and channels that ask for a key in their first message.
    pub fn nobody(peer: &Peer) -> Access {
        Access(Arc::new(Inner {
            actor: peer.actor(),
            may: Permissions::default(),
            required: true,
            credential: None,
        }))
    }

    /// What a credential allows.
    pub fn of_credential(actor: Arc<str>, may: Permissions, credential: Presented) -> Access {
        Access(Arc::new(Inner {
            actor,
            may,
            required: true,
            credential: Some(credential),
        }))
    }

    /// As reasons name it: `ana`, `token ci`, `key 3f09a1 (deploy)`.
    pub fn actor(&self) -> Arc<str> {
        self.0.actor.clone()
    }

    /// What it may do, to compare with what it wants to hand on.
    pub fn permissions(&self) -> &Permissions {
        &self.0.may
    }

    /// The credential it comes from.
    pub fn credential(&self) -> Option<&Presented> {
        self.0.credential.as_ref()
    }

    /// Has nothing been shown that would allow anything?
    pub fn is_nobody(&self) -> bool {
        self.0.credential.is_none() && !self.0.may.admin
    }

    /// Would a request like this need a credential? The original calls it that keys are required.
    pub fn is_required(&self) -> bool {
        self.0.required
    }

    /// Everything.
    pub fn is_admin(&self) -> bool {
        self.0.may.admin
    }

    /// Define and operate all jobs.
    pub fn may_manage_all(&self) -> bool {
        self.0.may.on_all(Strength::Manage)
    }

    /// Define jobs of this session.
    pub fn may_manage_session(&self, session: &str) -> bool {
        self.0.may.on_session(Strength::Manage, session)
    }

    /// Define and operate this job.
    pub fn may_manage(&self, job: &JobId) -> bool {
        self.0.may.on_job(Strength::Manage, job)
    }

    /// Start, stop, scale and signal this job.
    pub fn may_operate(&self, job: &JobId) -> bool {
        self.0.may.on_job(Strength::Operate, job)
    }

    /// Start, stop, scale and signal all jobs.
    pub fn may_operate_all(&self) -> bool {
        self.0.may.on_all(Strength::Operate)
    }

    /// Write to this job's input.
    pub fn may_write(&self, job: &JobId) -> bool {
        self.0.may.on_job(Strength::Write, job)
    }

    /// See this job and what it writes.
    pub fn may_read(&self, job: &JobId) -> bool {
        self.0.may.on_job(Strength::Read, job)
    }

    /// See all jobs of this session.
    pub fn may_read_session(&self, session: &str) -> bool {
        self.0.may.on_session(Strength::Read, session)
    }

    /// See everything that is about jobs.
    pub fn may_read_all(&self) -> bool {
        self.0.may.on_all(Strength::Read)
    }

    /// Make keys, with no more than it has itself.
    pub fn may_create_key(&self) -> bool {
        self.0.may.admin || self.0.may.create_key
    }

    /// Make users.
    pub fn may_create_user(&self) -> bool {
        self.0.may.admin || self.0.may.create_user
    }

    /// Has its credential been revoked, or has it expired?
    pub fn is_over(&self) -> bool {
        self.0.credential.as_ref().is_some_and(Presented::is_over)
    }

    /// Resolves when its credential is revoked or expires; never for a peer that needs none. Live streams end then.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let credential = self.0.credential.clone();
        async move {
            match credential {
                None => std::future::pending().await,
                Some(credential) => credential.over().await,
            }
        }
    }
}

impl Presented {
    fn is_over(&self) -> bool {
        let revoked = *self.revoked.borrow() || self.revoked.has_changed().is_err();
        revoked || self.expires.is_some_and(|at| at <= crate::view::now())
    }

    async fn over(mut self) {
        let expires = self.expires;
        let expired = async {
            let Some(at) = expires else {
                return std::future::pending().await;
            };
            // The wall clock may be set meanwhile: it is looked at again every day.
            loop {
                let left = at.0.saturating_sub(crate::view::now().0);
                if left <= 0 {
                    return;
                }
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX));
                tokio::time::sleep(left.min(SLEEP_MAX)).await;
            }
        };
        tokio::select! {
            // An error means that the credential is gone from the table: revoked.
            _revoked = self.revoked.wait_for(|revoked| *revoked) => {}
            () = expired => {}
        }
    }
}
