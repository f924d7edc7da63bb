//! `podkit doctor --attack`: attacks what it stands on, with a control run for each attack.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use podkit::{
    Error, ErrorKind, Isolation, Podkit,
    attacks::{Field, Finding, Plain, Proof, Run, Stage, Verdict, attacks, build_programs, prove},
};
use serde_json::{Value, json};

use super::Context;
use crate::{
    args::DoctorArgs,
    output::{Exit, Failure, printable},
    signals::Signals,
};

/// Attacks the engine, and says what became of each attack.
pub(super) async fn attack(
    context: &Context,
    args: &DoctorArgs,
) -> std::result::Result<Exit, Failure> {
    // Whatever ends it, nothing of it is left.
    let mut signals = Signals::listen()?;
    let podkit = context.podkit().await?;
    let place = Place::new().map_err(|error| {
        Error::new(
            ErrorKind::Unexpected,
            "there is no directory for the attacks",
        )
        .with_source(error)
    })?;
    let report = Report::new(&podkit, args);
    if !context.output.is_json() {
        context.output.text(&report.head())?;
    }
    let mut failed = Ok(());
    let tell = |finding: &Finding| {
        if !context.output.is_json() && failed.is_ok() {
            failed = context.output.text(&report.row(finding));
        }
    };
    let findings = match build_programs(&place.0.join("attacks")) {
        Ok(()) => run(context, &podkit, &place.0, (args, &mut signals), tell).await?,
        Err(error) => {
            context.output.warning(&error);
            not_run(&error, tell)
        }
    };
    failed?;
    context
        .output
        .result(|| report.json(&findings), || report.foot(&findings))?;
    Ok(
        if findings
            .iter()
            .all(|finding| finding.verdict.is_as_promised())
        {
            Exit::Success
        } else {
            Exit::Unhealthy
        },
    )
}

async fn run(
    context: &Context,
    podkit: &Podkit,
    place: &Path,
    (args, signals): (&DoctorArgs, &mut Signals),
    tell: impl FnMut(&Finding),
) -> std::result::Result<Vec<Finding>, Failure> {
    let stage = Stage::new(place, &place.join("attacks"))?;
    let plain = match args.beside.as_ref() {
        Some((engine, image)) => Some(Plain::start(engine, image, &stage).map_err(|error| {
            let what = format!("`{engine}` made no container to compare with");
            Error::new(ErrorKind::Unavailable, what).with_source(error)
        })?),
        None => None,
    };
    let proof = Proof {
        field: Field::new(podkit, &stage, context.settings.spec.clone()),
        plain,
        only: |_| true,
    };
    tokio::select! {
        findings = prove(&proof, tell) => Ok(findings?),
        number = signals.number() => {
            proof.field.clear().await?;
            Err(Failure::quiet(Exit::Signal(u8::try_from(number).unwrap_or(u8::MAX))))
        }
    }
}

/// Without programs nothing is shown, and nothing claimed.
fn not_run(error: &Error, mut tell: impl FnMut(&Finding)) -> Vec<Finding> {
    let findings: Vec<Finding> = attacks()
        .map(|attack| Finding::not_run(attack, error.message()))
        .collect();
    findings.iter().for_each(&mut tell);
    findings
}

/// A directory that goes with its value.
struct Place(PathBuf);

impl Place {
    fn new() -> io::Result<Self> {
        for place in ["/tmp", "/usr/local/share"] {
            clear(Path::new(place));
        }
        let path = Path::new("/tmp").join(format!("podkit-attack-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        // Others may pass, as ordinary users of the control runs do; nothing in it gives rights.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        Ok(Self(path))
    }
}

/// Removes what a run that was killed has left there.
fn clear(place: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ended = name
            .to_str()
            .and_then(|name| name.strip_prefix("podkit-attack-"))
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let Ok(facts) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        if ended && facts.uid() == ours {
            // Nothing more can be done about it.
            if facts.is_dir() {
                fs::remove_dir_all(entry.path()).unwrap_or_default();
            } else {
                fs::remove_file(entry.path()).unwrap_or_default();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing more can be done about it.
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// How findings are shown.
struct Report<'a> {
    engine: &'static str,
    isolation: Option<Isolation>,
    beside: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn new(podkit: &Podkit, args: &'a DoctorArgs) -> Self {
        Self {
            engine: podkit.backend_name(),
            isolation: podkit.capabilities().isolation,
            beside: args.beside.as_ref().map(|(engine, _)| engine.as_str()),
        }
    }

    fn line(&self, cells: [&str; 4], verdict: &str) -> String {
        let [about, control, plain, inside] = cells;
        let plain = self
            .beside
            .map(|_| format!("{plain:18}"))
            .unwrap_or_default();
        format!("{about:48} {control:18} {plain}{inside:18} {verdict}\n")
    }

    fn head(&self) -> String {
        let plain = self.beside.map(|name| format!("plain {name}"));
        let cells = [
            "attack",
            "control",
            plain.as_deref().unwrap_or_default(),
            "inside",
        ];
        format!("engine: {}\n{}", self.engine, self.line(cells, "verdict"))
    }

    fn row(&self, finding: &Finding) -> String {
        let plain = finding.plain.as_ref().map_or("", shown);
        let cells = [
            finding.about,
            shown(&finding.control),
            plain,
            shown(&finding.inside),
        ];
        let mut text = self.line(cells, finding.verdict.as_str());
        for (of, run) in [
            ("control", Some(&finding.control)),
            ("inside", Some(&finding.inside)),
        ] {
            if let Some(Run::NotRun(why) | Run::Absent(why)) = run {
                text += &format!("    {of} not run: {}\n", printable(why));
            }
        }
        if let Some(why) = finding.why {
            text += &format!("    why: {why}\n");
        }
        text
    }

    fn foot(&self, findings: &[Finding]) -> String {
        let counted: Vec<String> = counts(findings)
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(verdict, count)| format!("{count} {}", verdict.as_str().replace('_', " ")))
            .collect();
        format!("{} attacks: {}\n", findings.len(), counted.join(", "))
    }

    fn json(&self, findings: &[Finding]) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "attack": finding.about,
                "control": run_json(&finding.control),
                "plain": finding.plain.as_ref().map(run_json),
                "inside": run_json(&finding.inside),
                "verdict": finding.verdict.as_str(),
                "why": finding.why,
            })
        };
        let counts: serde_json::Map<String, Value> = counts(findings)
            .into_iter()
            .map(|(verdict, count)| (verdict.as_str().to_owned(), count.into()))
            .collect();
        json!({
            "backend": self.engine,
            "isolation": self.isolation.map(Isolation::as_str),
            "beside": self.beside,
            "as_promised": findings.iter().all(|finding| finding.verdict.is_as_promised()),
            "counts": counts,
            "attacks": findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

const VERDICTS: [Verdict; 7] = [
    Verdict::Held,
    Verdict::Unproven,
    Verdict::Absent,
    Verdict::Conceded,
    Verdict::Succeeded,
    Verdict::Unclear,
    Verdict::NotRun,
];

fn counts(findings: &[Finding]) -> [(Verdict, usize); 7] {
    VERDICTS.map(|verdict| {
        let count = findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count();
        (verdict, count)
    })
}

fn shown(run: &Run) -> &str {
    run.word().unwrap_or("-")
}

fn run_json(run: &Run) -> Value {
    match run {
        Run::Said(word) => json!({ "said": word }),
        Run::NotRun(why) => json!({ "not_run": why }),
        Run::Absent(why) => json!({ "absent": why }),
    }
}
