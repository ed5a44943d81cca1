//! One key of a resource file: its value read into what is wanted, or what is wrong with it where.
//!
//! The way of the data: a `Field` is a value with its place; each reader gives the wanted type or
//! a `Problem`, which `show` turns into a `Diagnostic` once the whole file has been looked at.
//!
//! Invariant: a reader never guesses. A number where a string belongs is a mistake that is shown.
//!
//! Deliberately not here: which keys there are (`draft`), and what two of them mean together.

use crate::base::diagnostic::{Diagnostic, did_you_mean};
use crate::base::path::KeyPath;
use crate::base::time::parse_duration;
use crate::render::resource::{Account, Wait};
use crate::render::window::Window;
use crate::sys::exec::CommandLine;
use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// A mistake at a byte range; an empty range means the table as a whole.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) range: Range<usize>,
    message: String,
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn unknown(key: &Spanned<Cow<'_, str>>, known: &[&str]) -> Self {
        let problem = Self::new(key.span(), format!("unknown key `{}`", key.get_ref()));
        match did_you_mean(key.get_ref(), known) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("known keys are: {}", known.join(", "))),
        }
    }

    pub(super) fn show(self, file: &str, text: &str) -> Diagnostic {
        let shown = Diagnostic::new(file, self.message).at(text, &self.range);
        match self.help {
            Some(help) => shown.help(help),
            None => shown,
        }
    }
}

/// A value together with its place, for checks that need other keys too.
pub(super) type Placed<T> = (T, Range<usize>);

/// A key's value with its place.
pub(super) struct Field<'a, 'i>(pub(super) &'a Spanned<DeValue<'i>>);

impl Field<'_, '_> {
    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.0.span(), message)
    }

    fn wrong(&self, wanted: &str) -> Problem {
        self.problem(format!("expected {wanted}, found {}", self.0.get_ref().type_str()))
    }

    pub(super) fn placed<T>(&self, value: Result<T, Problem>) -> Result<Placed<T>, Problem> {
        Ok((value?, self.0.span()))
    }

    pub(super) fn string(&self) -> Result<String, Problem> {
        let text = self.0.get_ref().as_str().ok_or_else(|| self.wrong("a string"))?;
        if text.is_empty() {
            return Err(self.problem("must not be empty"));
        }
        Ok(text.to_owned())
    }

    fn strings<T>(
        &self,
        read: fn(&Field<'_, '_>) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Problem> {
        let array = self.0.get_ref().as_array();
        let array = array.ok_or_else(|| self.wrong("an array of strings"))?;
        array.iter().map(|entry| read(&Field(entry))).collect()
    }

    pub(super) fn boolean(&self) -> Result<bool, Problem> {
        self.0.get_ref().as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// A whole number from 0 to `max`.
    pub(super) fn number(&self, max: u32) -> Result<u32, Problem> {
        let wanted = format!("a number from 0 to {max}");
        let number = self.0.get_ref().as_integer().ok_or_else(|| self.wrong(&wanted))?;
        let value = u32::from_str_radix(number.as_str(), number.radix());
        let value = value.ok().filter(|value| *value <= max);
        value.ok_or_else(|| self.problem(format!("expected {wanted}")))
    }

    /// The value of the name that is written.
    pub(super) fn one_of<T: Copy>(&self, known: &[(&str, T)]) -> Result<T, Problem> {
        let text = self.string()?;
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let help = format!("write one of {}", names.join(", "));
            self.problem(format!("`{text}` is not known here")).help(help)
        })
    }

    pub(super) fn window(&self) -> Result<Window, Problem> {
        let text = self.string()?;
        Window::parse(&text).ok_or_else(|| {
            self.problem(format!("`{text}` is no window")).help(
                "write days, hours and how far ahead of UTC they are: \"Mon-Fri 06:00-20:00 \
                 +02:00\"; without that they are UTC",
            )
        })
    }

    pub(super) fn key_path(&self) -> Result<KeyPath, Problem> {
        KeyPath::clean(self.string()?.as_bytes()).map_err(|error| self.problem(error.to_string()))
    }

    pub(super) fn key_paths(&self) -> Result<Vec<KeyPath>, Problem> {
        self.strings(|field| field.key_path())
    }

    /// A time above 0.
    pub(super) fn duration(&self) -> Result<Duration, Problem> {
        let time = self.duration_or_zero()?;
        if time.is_zero() { Err(self.not_a_duration()) } else { Ok(time) }
    }

    fn duration_or_zero(&self) -> Result<Duration, Problem> {
        let text = self.0.get_ref().as_str();
        let text = text.ok_or_else(|| self.wrong("a duration like \"30s\""))?;
        parse_duration(text).ok_or_else(|| self.not_a_duration())
    }

    fn not_a_duration(&self) -> Problem {
        let text = self.0.get_ref().as_str().unwrap_or_default();
        self.problem(format!("`{text}` is not a duration"))
            .help("write a number above 0 and a unit: ms, s, m or h, as in \"30s\"")
    }

    /// `{ min = "200ms", max = "5s" }`; without `max`, four times `min`.
    pub(super) fn wait(&self) -> Result<Wait, Problem> {
        let example = "write it as: wait = { min = \"200ms\", max = \"5s\" }";
        let table = self.0.get_ref().as_table();
        let table = table.ok_or_else(|| self.wrong("a table").help(example))?;
        let (mut min, mut max) = (Duration::ZERO, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "min" => min = Field(value).duration_or_zero()?,
                "max" => max = Some(Field(value).duration()?),
                _ => return Err(Problem::unknown(key, &["min", "max"])),
            }
        }
        let max = max.unwrap_or(min * 4);
        if max < min {
            return Err(self.problem("`max` is shorter than `min`").help(example));
        }
        Ok(Wait { min, max })
    }

    /// Octal, with or without a leading zero: confd read "644" as decimal, which nobody meant.
    pub(super) fn mode(&self) -> Result<u32, Problem> {
        let help = "write the octal mode as a string: mode = \"0640\"";
        let text = self.0.get_ref().as_str().ok_or_else(|| self.wrong("a string").help(help))?;
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(0) => Err(self.problem("with mode 0 nobody could read the file").help(help)),
            Ok(mode) if mode <= 0o777 => Ok(mode),
            Ok(mode) if mode <= 0o7777 => {
                let message = "a rendered file gets no set-id and no sticky bit";
                Err(self.problem(message).help(format!("write mode = \"{:04o}\"", mode & 0o777)))
            }
            Ok(_) | Err(_) => Err(self.problem(format!("`{text}` is not a file mode")).help(help)),
        }
    }

    /// A user or group by its name.
    pub(super) fn name(&self) -> Result<Placed<Account>, Problem> {
        self.placed(self.string().map(Account::Name))
    }

    /// A user or group by its number. The largest stands for "leave it" in chown(2).
    pub(super) fn id(&self) -> Result<Placed<Account>, Problem> {
        self.placed(self.number(u32::MAX - 1).map(Account::Id))
    }

    pub(super) fn command(&self) -> Result<Placed<CommandLine>, Problem> {
        if self.0.get_ref().is_str() {
            return self.placed(self.string().map(CommandLine::Shell));
        }
        let words = self
            .strings(|field| field.string())
            .map_err(|_| self.wrong("a string or an array of strings"))?;
        if words.is_empty() {
            return Err(self.problem("names no program"));
        }
        self.placed(Ok(CommandLine::Argv(words)))
    }
}
