//! Grammar of the commands about the command line itself: `completions`, `help`.

use clap::Args;

/// `completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `help`.
#[derive(Args, Clone, Debug)]
pub struct HelpArgs {
    /// A command, or targets, config, exit-codes, templates, events
    #[arg(value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// The whole reference as Markdown
    #[arg(long, hide = true)]
    pub reference: bool,
}
