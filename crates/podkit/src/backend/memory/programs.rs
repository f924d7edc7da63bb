//! The programs that a simulated container has.

use std::time::Duration;

use super::{exec::Process, place};

/// Their names, for the text about a program that is missing.
const NAMES: &str = "cat, echo, env, false, pwd, sh, sleep, true";

/// Where they seem to be.
const DIRECTORIES: &[&[u8]] = &[b"/bin/", b"/usr/bin/", b"/usr/local/bin/"];

/// What the shell does not know: with these a text would mean something else than it does here.
const SHELL_SYNTAX: &[u8] = b"$`\\|&<>(){}*?[]~#!=";

/// Runs a program and returns its exit code: 127 for one that is not there.
pub(super) async fn run(process: &mut Process, argv: &[Vec<u8>]) -> u8 {
    match argv {
        [program, option, text, ..] if name_of(program) == Some(b"sh") && option == b"-c" => {
            shell(process, text).await
        }
        [program, rest @ ..] => simple(process, program, rest).await,
        [] => 127,
    }
}

/// The bare name of a program, unless its path leads elsewhere.
fn name_of(program: &[u8]) -> Option<&[u8]> {
    if !program.contains(&b'/') {
        return Some(program);
    }
    let stripped = |directory: &&[u8]| program.strip_prefix(*directory);
    DIRECTORIES
        .iter()
        .find_map(stripped)
        .filter(|name| !name.contains(&b'/'))
}

/// Runs any program but the shell.
async fn simple(process: &mut Process, program: &[u8], arguments: &[Vec<u8>]) -> u8 {
    match name_of(program) {
        Some(b"true") => 0,
        Some(b"false") => 1,
        Some(b"echo") => echo(process, arguments).await,
        Some(b"cat") => cat(process, arguments).await,
        Some(b"pwd") => {
            let line = [&process.cwd[..], b"\n"].concat();
            process.say(&line).await;
            0
        }
        Some(b"env") if arguments.is_empty() => {
            let line =
                |(name, value): (&Vec<u8>, &Vec<u8>)| [name, &b"="[..], value, b"\n"].concat();
            let text: Vec<u8> = process.env.iter().flat_map(line).collect();
            process.say(&text).await;
            0
        }
        Some(b"sleep") => sleep(process, arguments).await,
        _ => missing(process, program).await,
    }
}

async fn missing(process: &mut Process, program: &[u8]) -> u8 {
    let shown = String::from_utf8_lossy(program);
    let is_there = program.contains(&b'/')
        && place::place(&process.cwd, program)
            .and_then(|place| process.container.tree.lock().stat(&place))
            .is_ok();
    let (why, code) = if is_there {
        ("a simulated container runs no files", 126)
    } else {
        ("there is no such program in a simulated container", 127)
    };
    process
        .complain(&format!("{shown}: {why}; it has {NAMES}\n"))
        .await;
    code
}

async fn echo(process: &mut Process, arguments: &[Vec<u8>]) -> u8 {
    let (words, end) = match arguments {
        [option, words @ ..] if option == b"-n" => (words, &b""[..]),
        words => (words, &b"\n"[..]),
    };
    let text = [&words.join(&b' ')[..], end].concat();
    process.say(&text).await;
    0
}

async fn cat(process: &mut Process, names: &[Vec<u8>]) -> u8 {
    let standard_input = [b"-".to_vec()];
    let names = if names.is_empty() {
        &standard_input[..]
    } else {
        names
    };
    let mut code = 0;
    for name in names {
        if name == b"-" {
            while let Some(bytes) = process.listen().await {
                process.say(&bytes).await;
            }
            continue;
        }
        let read = place::place(&process.cwd, name)
            .and_then(|place| process.container.tree.lock().read(&place));
        match read {
            Ok(bytes) => process.say(&bytes).await,
            Err(failure) => {
                process
                    .complain(&format!("cat: {}\n", failure.message))
                    .await;
                code = 1;
            }
        }
    }
    code
}

async fn sleep(process: &mut Process, arguments: &[Vec<u8>]) -> u8 {
    let seconds = match arguments {
        [text] => std::str::from_utf8(text).ok(),
        _ => None,
    };
    if seconds == Some("infinity") {
        return std::future::pending().await;
    }
    let time = seconds.and_then(|text| text.parse().ok());
    let Some(time) = time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        process
            .complain("sleep: give one number of seconds\n")
            .await;
        return 1;
    };
    tokio::time::sleep(time).await;
    0
}

/// Runs lists of commands with quoted words, and `exit`; refuses what it does not know.
async fn shell(process: &mut Process, text: &[u8]) -> u8 {
    let commands = match parse(text) {
        Ok(commands) => commands,
        Err(what) => {
            process
                .complain(&format!("sh: the simulated shell does not know {what}\n"))
                .await;
            return 2;
        }
    };
    let mut code = 0;
    for command in commands {
        code = match command.as_slice() {
            [exit] if exit == b"exit" => return code,
            [exit, number] if exit == b"exit" => {
                let number = std::str::from_utf8(number)
                    .ok()
                    .and_then(|text| text.parse().ok());
                return number.unwrap_or(2);
            }
            [program, rest @ ..] => simple(process, program, rest).await,
            [] => code,
        };
    }
    code
}

/// Splits a text into commands of words.
fn parse(text: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, String> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for &byte in text {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (Some(b'"'), b'$' | b'`' | b'\\') => return Err(format!("`{}`", char::from(byte))),
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, b' ' | b'\t' | b';' | b'\n') => {
                if let (Some(done), Some(command)) = (word.take(), commands.last_mut()) {
                    command.push(done);
                }
                if matches!(byte, b';' | b'\n') {
                    commands.push(Vec::new());
                }
            }
            (None, _) if SHELL_SYNTAX.contains(&byte) => {
                return Err(format!("`{}`", char::from(byte)));
            }
            (_, _) => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        return Err("a quote that is not closed".to_owned());
    }
    if let (Some(done), Some(command)) = (word, commands.last_mut()) {
        command.push(done);
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_text_is_split_into_commands_of_words() {
        let commands = parse(b"echo 'a  b' \"c\"d;\n pwd ").unwrap();
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let expected: Vec<Vec<Vec<u8>>> =
            vec![words(&["echo", "a  b", "cd"]), words(&[]), words(&["pwd"])];
        assert_eq!(commands, expected);
        for text in ["echo $HOME", "a | b", "echo \"$A\"", "echo 'open", "A=b"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
