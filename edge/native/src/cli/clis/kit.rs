//! The CLIs that can be added: what `runner/images` has of each.

use clap::ValueEnum;

/// A CLI that `clis add` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Known {
    Gemini,
    Claude,
    Codex,
}

/// What makes a CLI's image and its entry.
pub(super) struct Kit {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) entry: &'static str,
    /// The image's build context.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Where the vendor's own tools look for a key.
    pub(super) key_variable: &'static str,
}

macro_rules! image_file {
    ($cli:literal, $file:literal) => {
        include_str!(concat!("../../../../../runner/images/", $cli, "/", $file))
    };
}

impl Known {
    pub(super) fn kit(self) -> Kit {
        match self {
            Self::Gemini => Kit {
                name: "gemini",
                title: "Gemini CLI",
                entry: image_file!("gemini", "entry.toml"),
                files: &[
                    ("Dockerfile", image_file!("gemini", "Dockerfile")),
                    ("settings.json", image_file!("gemini", "settings.json")),
                    ("system.md", image_file!("gemini", "system.md")),
                ],
                key_variable: "GEMINI_API_KEY",
            },
            Self::Claude => Kit {
                name: "claude",
                title: "Claude Code",
                entry: image_file!("claude", "entry.toml"),
                files: &[("Dockerfile", image_file!("claude", "Dockerfile"))],
                key_variable: "ANTHROPIC_API_KEY",
            },
            Self::Codex => Kit {
                name: "codex",
                title: "Codex CLI",
                entry: image_file!("codex", "entry.toml"),
                files: &[
                    ("Dockerfile", image_file!("codex", "Dockerfile")),
                    ("system.md", image_file!("codex", "system.md")),
                ],
                key_variable: "OPENAI_API_KEY",
            },
        }
    }
}
