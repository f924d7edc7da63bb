//! The same programs in containers that an engine's own command line makes with its own defaults, to
//! compare with.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::{
    How, Run, Stage, Victim,
    stage::{NEIGHBOUR_PORT, last_word},
};

/// Two containers that `docker run` or `podman run` made; they go with this value.
#[derive(Debug)]
pub struct Plain {
    engine: String,
    name: String,
    neighbour: String,
}

impl Plain {
    /// Makes them from an image that is there already.
    ///
    /// # Errors
    /// When the command line cannot be run, or refuses.
    pub fn start(engine: &str, image: &str, stage: &Stage) -> io::Result<Self> {
        let name = format!("plain-attack-{}", std::process::id());
        let mut plain = Self {
            engine: engine.to_owned(),
            neighbour: String::new(),
            name,
        };
        plain.run(
            stage,
            &plain.name,
            image,
            &["/attacks/exhaust", "processes", "0", "hold"],
        )?;
        let listen = [
            "/attacks/reach",
            "listen",
            "podkit-neighbour",
            NEIGHBOUR_PORT,
        ];
        let other = format!("{}-neighbour", plain.name);
        plain.run(stage, &other, image, &listen)?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let addresses = plain.command(&["inspect", "-f", format, &other])?;
        let first = addresses.split_whitespace().next();
        first
            .unwrap_or("127.0.0.1")
            .clone_into(&mut plain.neighbour);
        Ok(plain)
    }

    fn run(&self, stage: &Stage, name: &str, image: &str, argv: &[&str]) -> io::Result<()> {
        let programs = format!("{}:/attacks:ro", stage.programs().display());
        let data = format!("{}:/data:ro", stage.read_only().display());
        let mut words = vec![
            "run", "-d", "-i", "--name", name, "-v", &programs, "-v", &data,
        ];
        words.push(image);
        words.extend(argv);
        self.command(&words).map(drop)
    }

    fn command(&self, words: &[&str]) -> io::Result<String> {
        let output = Command::new(&self.engine)
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(
            said.lines().last().unwrap_or("it failed").to_owned(),
        ))
    }

    /// Runs an attack in one of them.
    ///
    /// # Errors
    /// When the command line cannot be run.
    pub fn attack(&self, how: &How, stage: &Stage, victim: &Victim) -> io::Result<Run> {
        match how {
            How::Program { argv, .. } => {
                let argv: Vec<String> = argv
                    .iter()
                    .map(|word| stage.inside(word, victim, &self.neighbour))
                    .collect();
                let output = self.exec(&argv).output()?;
                Ok(Run::Said(match output.status.code() {
                    Some(159) => "SIGSYS".to_owned(),
                    Some(137) => "killed".to_owned(),
                    _ => last_word(&output.stdout),
                }))
            }
            How::Exhaustion(what) => {
                let place = what.place.replace("{tmp}", "/tmp");
                let argv = ["exhaust", what.kind, what.amount, "hold", &place];
                let mut taker = self.exec(&argv.map(str::to_owned));
                let mut taker = taker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                let mut line = String::new();
                if let Some(output) = taker.stdout.take() {
                    BufReader::new(output).read_line(&mut line)?;
                }
                let host_goes_on = stage.host_gets(what)?;
                drop(taker.stdin.take());
                taker.wait()?;
                Ok(Run::said(if host_goes_on {
                    last_word(line.as_bytes())
                } else {
                    "ok".to_owned()
                }))
            }
            How::Deed(_) => Ok(Run::absent("is one on podkit alone")),
        }
    }

    fn exec(&self, argv: &[String]) -> Command {
        let mut command = Command::new(&self.engine);
        command.args(["exec", "-i", &self.name]);
        for (place, word) in argv.iter().enumerate() {
            if place == 0 {
                command.arg(format!("/attacks/{word}"));
            } else {
                command.arg(word);
            }
        }
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let other = format!("{}-neighbour", self.name);
        // What is left is named on the engine, and can be removed by anybody.
        let _ = self.command(&["rm", "-f", &self.name, &other]);
    }
}
