//! What became of an attack: pure functions of what its runs said.

use super::{ABSENT, Attack};

/// One run of an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// It was made, and said this: `ok` when it succeeded, else why not, mostly an error's name.
    Said(String),
    /// It could not be made, and why.
    NotRun(String),
    /// There is nothing here to attack, and why.
    Absent(String),
}

impl Run {
    /// A run that said `word`.
    pub fn said(word: impl Into<String>) -> Self {
        Self::Said(word.into())
    }

    /// A run that was not made.
    pub fn not_run(why: impl Into<String>) -> Self {
        Self::NotRun(why.into())
    }

    /// A run that attacks something that is not there.
    pub fn absent(why: impl Into<String>) -> Self {
        Self::Absent(why.into())
    }

    /// Whether the attack succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Said(word) if word == "ok")
    }

    /// What it said, where it was made.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Said(word) => Some(word),
            Self::NotRun(_) | Self::Absent(_) => None,
        }
    }
}

/// What became of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It succeeds in the control run, and was refused inside.
    Held,
    /// It was refused inside; that it succeeds elsewhere was not shown.
    Unproven,
    /// There is nothing to attack: on this machine, so that the control run failed, or on this engine.
    Absent,
    /// It succeeds inside, as this engine is known to let it: [`Finding::why`] names the reason.
    Conceded,
    /// It succeeds inside.
    Succeeded,
    /// What happened is neither: the control run failed, or what was said inside is no refusal.
    Unclear,
    /// It was not run inside.
    NotRun,
}

impl Verdict {
    /// Stable lower-case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Unproven => "unproven",
            Self::Absent => "absent",
            Self::Conceded => "conceded",
            Self::Succeeded => "succeeded",
            Self::Unclear => "unclear",
            Self::NotRun => "not_run",
        }
    }

    /// Whether this is as podkit says that it is.
    #[must_use]
    pub const fn is_as_promised(self) -> bool {
        match self {
            Self::Held | Self::Unproven | Self::Absent | Self::Conceded => true,
            Self::Succeeded | Self::Unclear | Self::NotRun => false,
        }
    }
}

/// What became of one attack, and how that is known.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// What it tries.
    pub about: &'static str,
    /// The run where nothing defends.
    pub control: Run,
    /// The run in a container that an engine made by its own defaults, where one was given.
    pub plain: Option<Run>,
    /// The run in podkit's container.
    pub inside: Run,
    /// What follows.
    pub verdict: Verdict,
    /// Why it was let through.
    pub why: Option<&'static str>,
}

impl Finding {
    /// Nothing of the attack was run, and why.
    #[must_use]
    pub fn not_run(attack: &Attack, why: &str) -> Self {
        Self {
            about: attack.about,
            control: Run::not_run(why),
            plain: None,
            inside: Run::not_run(why),
            verdict: Verdict::NotRun,
            why: None,
        }
    }
}

/// Draws the conclusion from the runs of an attack, and the reason for which this engine lets it
/// through, where there is one.
#[must_use]
pub fn judge(
    attack: &Attack,
    control: &Run,
    inside: &Run,
    conceded: Option<&'static str>,
) -> Verdict {
    let word = match inside {
        Run::Said(word) => word.as_str(),
        Run::NotRun(_) => return Verdict::NotRun,
        Run::Absent(_) => return Verdict::Absent,
    };
    if inside.succeeded() {
        return match conceded {
            Some(_) => Verdict::Conceded,
            None => Verdict::Succeeded,
        };
    }
    if !attack.refused_with.contains(&word) {
        return Verdict::Unclear;
    }
    match control.word() {
        None => Verdict::Unproven,
        Some("ok") => Verdict::Held,
        Some(absent) if attack.optional && ABSENT.contains(&absent) => Verdict::Absent,
        Some(_) => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attacks::attack;

    fn verdict(control: &Run, inside: &str, optional: bool) -> Verdict {
        let mut tried = attack("try", &["kernel"], &["EPERM"]);
        tried.optional = optional;
        judge(&tried, control, &Run::said(inside), None)
    }

    #[test]
    fn attack_is_held_only_when_its_control_succeeded() {
        let not_run = Run::not_run("needs root");
        assert_eq!(verdict(&Run::said("ok"), "EPERM", false), Verdict::Held);
        assert_eq!(verdict(&not_run, "EPERM", false), Verdict::Unproven);
        assert_eq!(
            verdict(&Run::said("ENOSYS"), "EPERM", true),
            Verdict::Absent
        );
        assert_eq!(
            verdict(&Run::said("ENOSYS"), "EPERM", false),
            Verdict::Unclear
        );
        assert_eq!(
            verdict(&Run::said("EBUSY"), "EPERM", true),
            Verdict::Unclear
        );
    }

    #[test]
    fn attack_that_succeeds_or_ends_oddly_is_never_as_promised() {
        for control in [Run::said("ok"), Run::said("EPERM"), Run::not_run("no cc")] {
            assert_eq!(verdict(&control, "ok", false), Verdict::Succeeded);
            assert_eq!(verdict(&control, "nothing", false), Verdict::Unclear);
            assert!(!verdict(&control, "ok", true).is_as_promised());
        }
    }
}
