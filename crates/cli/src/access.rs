//! Grammar of credentials: the options of every command that say who asks, and `login`, `token` and `user`.

use clap::{Args, Subcommand, ValueEnum};
use gaffer_api::access::TokenScope;
use std::path::PathBuf;

/// Who asks, and over which TLS.
#[derive(Args, Clone, Debug, Default)]
pub struct Credentials {
    /// File with a token (else $GAFFER_TOKEN, else what `gaffer login` keeps)
    #[arg(long, global = true, hide = true, value_name = "F")]
    pub token_file: Option<PathBuf>,
    /// Key or token; others see it in the list of processes
    #[arg(long, global = true, hide = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// PEM file of the authorities that are believed, instead of the system's
    #[arg(long, global = true, hide = true, value_name = "F")]
    pub cacert: Option<PathBuf>,
    /// PEM file of this client's certificate
    #[arg(long, global = true, hide = true, value_name = "F")]
    pub certfile: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, global = true, hide = true, value_name = "F")]
    pub keyfile: Option<PathBuf>,
}

/// `login`.
#[derive(Args, Clone, Debug)]
pub struct LoginArgs {
    /// User; asked for if it is missing
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// Password; better left out: it is asked for
    #[arg(short, long, value_name = "TEXT")]
    pub password: Option<String>,
    /// Keep a token or key instead; it is asked for, or read from standard input
    #[arg(long, conflicts_with_all = ["username", "password"])]
    pub with_token: bool,
}

/// What a credential allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    // See.
    Read,
    // Also act on what is defined.
    Operate,
    // Also define.
    Admin,
}

impl Scope {
    /// As the API has it.
    pub fn of_api(self) -> TokenScope {
        match self {
            Scope::Read => TokenScope::Read,
            Scope::Operate => TokenScope::Operate,
            Scope::Admin => TokenScope::Admin,
        }
    }
}

/// What a credential is to allow.
#[derive(Args, Clone, Debug)]
pub struct May {
    /// read: see; operate: also start, stop, scale, signal; admin: also define, which is to run any program
    #[arg(long, value_name = "SCOPE", default_value = "read")]
    pub scope: Scope,
    /// Only for these: shop, shop.web or 'shop.*'; repeatable
    #[arg(long = "for", value_name = "JOBS", value_delimiter = ',')]
    pub jobs: Vec<String>,
}

/// `token`.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub verb: TokenCommand,
}

/// `token …`.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, once
    #[command(after_help = TOKEN_CREATE)]
    Create {
        /// Name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        may: May,
        /// How long it lives: 12h, 30d; else until it is removed
        #[arg(long, value_name = "D")]
        expires: Option<String>,
    },
    /// List tokens; their texts are not kept
    #[command(after_help = TOKEN_LS)]
    Ls,
    /// Revoke tokens; what uses them ends at once
    #[command(after_help = TOKEN_RM)]
    Rm {
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

/// `user`.
#[derive(Args, Clone, Debug)]
pub struct UserArgs {
    #[command(subcommand)]
    pub verb: UserCommand,
}

/// `user …`.
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user, who logs in with a password to get a key
    #[command(after_help = USER_CREATE)]
    Create {
        /// Name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        may: May,
    },
    /// List users
    #[command(after_help = USER_LS)]
    Ls,
    /// Show a user
    #[command(after_help = USER_SHOW)]
    Show {
        /// Name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Give a user another password
    #[command(after_help = USER_PASSWORD)]
    Password {
        /// Name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove users and their keys
    #[command(after_help = USER_RM)]
    Rm {
        /// Names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

/// Examples of `login`.
pub const LOGIN: &str = "\
The key is kept for this URL in $GAFFER_CONFIG, else in gaffer/config.toml of your configuration folder (0600).

Examples:
  gaffer login --url https://build.example:5000
  gaffer login --url https://build.example:5000 --with-token < token
  gaffer login --url https://10.0.0.7:5000 --cacert ca.pem -u ana";
/// Examples of `token`.
pub const TOKEN: &str = "\
Examples:
  gaffer token create ci --scope operate --for 'shop.*' --expires 30d
  gaffer token ls
  gaffer token rm ci";
/// Examples of `token create`.
const TOKEN_CREATE: &str = "\
The text goes to standard output and is never shown again.

Examples:
  gaffer token create ci --scope operate --for 'shop.*' --expires 30d
  gaffer token create watcher > token     may only look, at everything";
/// Examples of `token ls`.
const TOKEN_LS: &str = "\
Examples:
  gaffer token ls --json";
/// Examples of `token rm`.
const TOKEN_RM: &str = "\
Examples:
  gaffer token rm ci -y";
/// Examples of `user`.
pub const USER: &str = "\
Examples:
  gaffer user create ana --scope admin
  gaffer user ls
  gaffer user password ana";
/// Examples of `user create`.
const USER_CREATE: &str = "\
The password is asked for, or is the first line of standard input.

Examples:
  gaffer user create ana --scope admin
  gaffer user create bob --scope operate --for shop";
/// Examples of `user ls`.
const USER_LS: &str = "\
Examples:
  gaffer user ls --json";
/// Examples of `user show`.
const USER_SHOW: &str = "\
Examples:
  gaffer user show ana";
/// Examples of `user password`.
const USER_PASSWORD: &str = "\
Examples:
  gaffer user password ana";
/// Examples of `user rm`.
const USER_RM: &str = "\
Examples:
  gaffer user rm bob -y";
