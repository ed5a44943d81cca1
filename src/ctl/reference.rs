//! `reference`: the pages of `docs/reference/` that the code itself writes.
//!
//! Why a hidden verb: a page that is written from the same tables as the program cannot describe
//! another program; `tests/reference.rs` runs the verb and compares, so a page that is out of date
//! is a failing test, and `UPDATE_GOLDENFILES=1` brings it up to date.
//!
//! How data passes: clap's definition, `config::table`, `base::report` and `words` -> Markdown.
//!
//! Invariant: the same binary writes the same bytes, whatever its surroundings.

use crate::base::report::{Exit, Report};
use crate::config::table::{SPECS, Spec};
use crate::ctl::Cli;
use crate::ctl::output::Out;
use crate::ctl::words::{self, Word};
use crate::render::resource::words::KEYS;
use clap::CommandFactory;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Page {
    /// Every verb with its flags.
    Cli,
    /// Every setting.
    Config,
    /// Every key of a template resource.
    Resources,
    /// Every exit code.
    ExitCodes,
    /// Every function and filter of templates.
    TemplateFunctions,
}

/// Arguments of `reference`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing reference config\n  althing reference exit-codes")]
pub struct ReferenceArgs {
    /// The page
    #[arg(value_enum)]
    pub page: Page,
}

/// Prints a page as Markdown.
///
/// # Errors
/// When it cannot be written.
pub fn reference(args: &ReferenceArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let page = match args.page {
        Page::Cli => cli(),
        Page::Config => config(),
        Page::Resources => resources(),
        Page::ExitCodes => exit_codes(),
        Page::TemplateFunctions => template_functions(),
    };
    out.line(page.trim_end())
}

fn heading(title: &str, page: &str) -> String {
    format!(
        "# {title}\n\n<!-- Written by `althing reference {page}`; tests/reference.rs compares. -->\n\n"
    )
}

fn cli() -> String {
    let mut text = heading("Command line", "cli");
    text += "One binary, verbs first. Results go to standard output, everything else to standard \
             error; a failure says `error:`, `cause:` and `help:`, and ends with one of the \
             [exit codes](exit-codes.md). Settings of `run`: [config](config.md).\n\n";
    text += "`ALTHING_ENDPOINT` names the server for every verb that asks one. Colours are for \
             terminals; `NO_COLOR` and `CLICOLOR_FORCE` overrule.\n";
    let mut command = Cli::command();
    command.build();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        describe(verb, &mut text);
    }
    text
}

fn describe(verb: &clap::Command, text: &mut String) {
    if verb.get_name() == "help" {
        return;
    }
    let mut verb = verb.clone().mut_args(|argument| argument.hide_env_values(true));
    let name = verb.get_bin_name().unwrap_or_default().to_owned();
    let help = verb.render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    *text += &format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n"));
    for inner in verb.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        describe(inner, text);
    }
}

fn config() -> String {
    let mut text = heading("Settings", "config");
    text += "A setting is worked out from four places; a later one wins:\n\n\
             1. its default,\n\
             2. the settings file: `--config FILE`, else `ALTHING_CONFIG`, else \
             `/etc/althing/althing.toml` if it is there,\n\
             3. its environment variable; an empty one counts as unset,\n\
             4. its flag.\n\n\
             `althing config show --origin` prints every setting and where it comes from. A key \
             the file does not know is an error. `SIGHUP` reads the file again: settings marked \
             *reload* change at once, the others are named in the log and wait for a restart; a \
             file with a mistake is refused, and the old settings stay.\n\n";
    text += "| key | flag | environment | default | takes effect at |\n|---|---|---|---|---|\n";
    text += &SPECS.map(setting_row).concat();
    text += "\n## What they mean\n";
    for spec in SPECS {
        text +=
            &format!("\n### {}\n\n{}.\n\n```toml\n{}\n```\n", spec.key, spec.doc, example(spec));
    }
    text += "\n## Variables that are no settings\n\n\
             | variable | meaning |\n|---|---|\n\
             | `ALTHING_CONFIG` | the settings file |\n\
             | `ALTHING_ENDPOINT`, `ALTHING_ENDPOINTS` | the servers a client asks, with commas \
             between |\n\
             | `ALTHING_LOG` | what the daemon logs, such as `warn,althing=debug` |\n\
             | `NO_COLOR`, `CLICOLOR_FORCE` | colours never, or always |\n";
    text
}

fn setting_row(spec: &Spec) -> String {
    let default = match (spec.value_name, spec.default) {
        ("DIRS", "") => "everywhere".to_owned(),
        (_, "") => "worked out".to_owned(),
        (_, default) => format!("`{default}`"),
    };
    let when = if spec.live { "reload" } else { "restart" };
    format!("| `{}` | `--{}` | `{}` | {default} | {when} |\n", spec.key, spec.flag, spec.env)
}

/// A line of a settings file.
fn example(spec: &Spec) -> String {
    let value = match (spec.value_name, spec.default) {
        ("", default) => default.to_owned(),
        ("URLS", "") => "[\"http://db1.example:2379\"]".to_owned(),
        ("URLS", default) => format!("[\"{}\"]", default.replace(',', "\", \"")),
        ("DIRS", _) => "[\"/etc/haproxy\", \"/etc/nginx\"]".to_owned(),
        (_, "") => "\"db1\"".to_owned(),
        (_, default) => format!("\"{default}\""),
    };
    format!("{} = {value}", spec.key)
}

fn resources() -> String {
    let mut text = heading("Template resources", "resources");
    text += "A file `conf.d/NAME.toml`, or one in a directory below, says which file is rendered \
             from which template: keys below `[template]`, or below several `[[template]]`. A key \
             that is not here is an error; `althing check` shows its line.\n\n\
             What is put off by `wait`, `min_reload_interval`, `splay` or `window` is never \
             dropped: the file is then rendered from what the keys are by that time, and until \
             then `althing status` shows `waiting`, `althing why FILE` for what. What each step \
             does when it fails: [checks and reloads](../guides/checks-and-reloads.md).\n\n";
    text += "| key | example | meaning |\n|---|---|---|\n";
    for key in KEYS {
        text += &format!("| `{}` | `{}` | {} |\n", key.key, key.example, key.doc);
    }
    text
}

fn exit_codes() -> String {
    let mut text = heading("Exit codes", "exit-codes");
    text += "Every verb ends with one of these. An error never ends with 0.\n\n\
             | code | meaning | what to do |\n|---|---|---|\n\
             | 0 | done; for `plan`: nothing would change | |\n";
    for exit in Exit::ALL {
        let (meaning, next) = exit.meaning();
        text += &format!("| {} | {meaning} | {next} |\n", exit.code());
    }
    text += "\nSome verbs say more with them:\n\n\
             | verb | code | meaning |\n|---|---|---|\n\
             | `plan` | 1 | something would change |\n\
             | `plan` | 255 | it could not be worked out, for whatever reason |\n\
             | `check` | 78 | settings or resource files are wrong |\n\
             | `check` | 1 | a template fails, or a `check_cmd` refuses its file |\n\
             | `status` | 1 | a rendered file is not up to date |\n\
             | `why` | 4 | no resource writes this file |\n";
    text
}

fn template_functions() -> String {
    let mut text = heading("Template functions and filters", "template-functions");
    text += "Templates are [Tera 2](https://keats.github.io/tera/). Besides what Tera brings, \
             there are the words below. Arguments have names: `getv(key=\"/a\")`. Keys are \
             relative to the resource's `prefix`.\n\n\
             Every text a template prints is held against the *line guard*: a stored value with a \
             control character fails the render, so that a value cannot add a line to a file; \
             `| multiline` lets line breaks and tabs through. The template's own text is free: \
             `join(sep=\"\\n\")` puts clean values on lines of their own. Tera's `safe` is not \
             there.\n";
    text += "\n## Functions\n";
    text += &table(words::FUNCTIONS);
    text += "\nSRV records cannot be looked up; [why](../decisions/no-srv-lookup.md).\n";
    text += "\n## Filters\n";
    text += &table(words::FILTERS);
    text += "\n## From Tera\n\n";
    text += &format!("Filters: {}.\n\n", listed(words::TERA_FILTERS));
    text += &format!("Functions: {}.\n", listed(words::TERA_FUNCTIONS));
    text += &format!(
        "\n## The keys of the examples\n\n```json\n{}```\n\n\
         Try one: save them as `keys.json` and render with `--data keys.json`.\n",
        words::EXAMPLE_KEYS
    );
    text
}

fn table(words: &[Word]) -> String {
    let mut text = "\n| written | returns | example | prints |\n|---|---|---|---|\n".to_owned();
    for word in words {
        let code = |code: &str| format!("`{}`", code.replace('|', "\\|"));
        let prints = if word.prints.is_empty() { String::new() } else { code(word.prints) };
        text += &format!(
            "| {} | {} | {} | {prints} |\n",
            code(word.form),
            word.doc,
            code(&format!("{{{{ {} }}}}", word.example))
        );
    }
    text
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
