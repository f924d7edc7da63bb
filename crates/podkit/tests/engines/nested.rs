//! Clients that run in a container of the engine's, with its socket mounted.

use std::path::Path;

use podkit::{Network, Opened, Podkit, SessionSpec};

use super::{
    DEBIAN, Engine, prefix_of, run,
    support::{
        podkit_at,
        worker::{Worker, tell},
    },
    tests,
};

tests![
    parent_is_found_whatever_its_host_name_and_network_are,
    parent_of_a_client_with_the_host_name_of_a_container_is_not_that_one,
    parent_of_a_client_outside_is_none_whatever_its_host_name,
    session_of_a_nested_client_has_the_networks_and_the_image_of_its_container,
    session_of_a_nested_client_that_lost_a_network_is_a_conflict,
];

/// Another image than the usual one.
const OTHER: &str = "podkit-test/user:1";

/// What a test has made on the engine, to be removed with it.
struct Outer<'a> {
    engine: &'a Engine,
    containers: Vec<String>,
    networks: Vec<String>,
}

impl<'a> Outer<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            containers: Vec::new(),
            networks: Vec::new(),
        }
    }

    fn network(&mut self, name: &str) -> String {
        let name = self.engine.own_name(name);
        self.engine.run(&["network", "create", &name]);
        self.networks.push(name.clone());
        name
    }

    /// Starts a container that a client can run in: with the engine's socket, the test's place and this
    /// program.
    fn container(&mut self, name: &str, image: &str, settings: &[&str]) -> String {
        let name = self.engine.own_name(name);
        let program = std::env::current_exe().unwrap();
        let (program, place) = (program.display(), self.engine.place.path().display());
        let socket = match self.engine.name {
            "docker" => "/run/docker.sock:/var/run/docker.sock",
            _ => "/run/podman/podman.sock:/run/podman/podman.sock",
        };
        let (program, place) = (
            format!("{program}:{program}:ro"),
            format!("{place}:{place}"),
        );
        let mut words = vec![
            "run",
            "-d",
            "--name",
            &name,
            "--user",
            "0:0",
            "--stop-timeout",
            "0",
        ];
        for mount in [socket, &program, &place] {
            words.extend(["-v", mount]);
        }
        words.extend(settings);
        words.extend([image, "sleep", "1000"]);
        self.engine.run(&words);
        self.containers.push(name.clone());
        name
    }

    /// A client in a container.
    fn client(&self, container: &str) -> Worker {
        let mut command = self.engine.command();
        command.args(["exec", "-i", container]);
        Worker::try_start_by(self.engine.place.path(), &mut command).unwrap()
    }
}

impl Drop for Outer<'_> {
    fn drop(&mut self) {
        // A network goes after all that are on it: sessions first.
        let filter = format!(
            "label=podkit.prefix={}",
            prefix_of(self.engine.place.path())
        );
        let sessions = self.engine.attempt(&["ps", "-aq", "--filter", &filter]);
        for id in sessions.unwrap_or_default().lines() {
            self.engine.try_run(&["rm", "-f", "-v", id]);
        }
        // Those that share a network go before its owner.
        for name in self.containers.iter().rev() {
            self.engine.try_run(&["rm", "-f", "-v", name]);
        }
        for name in &self.networks {
            self.engine.try_run(&["network", "rm", name]);
        }
    }
}

/// What a client in a container does beyond what every client can.
pub(super) fn work(place: &Path, words: &[&str]) -> Option<String> {
    let (place, words) = (place.to_owned(), words.join(" "));
    let work = move || {
        run(async {
            let podkit = podkit_at(&place).await;
            match words.as_str() {
                "parent" => Some(tell(parent(&podkit).await)),
                "inherit" => Some(tell(inherit(&podkit).await)),
                _ => None,
            }
        })
    };
    // The caller is a task of a runtime already.
    std::thread::spawn(work).join().unwrap()
}

async fn parent(podkit: &Podkit) -> podkit::Result<String> {
    let parent = podkit.parent().await?;
    Ok(parent.map_or_else(|| "none".to_owned(), |parent| parent.name))
}

async fn inherit(podkit: &Podkit) -> podkit::Result<String> {
    let spec = SessionSpec::new()
        .inherit_image(true)
        .inherit_networks(true);
    let session = podkit.session("u", "s").spec(spec).await?;
    let output = session.exec(["echo", "hi"]).await?;
    assert_eq!(output.stdout, b"hi\n");
    Ok(session.opened().as_str().to_owned())
}

fn parent_is_found_whatever_its_host_name_and_network_are(engine: &Engine) {
    let mut outer = Outer::new(engine);
    let network = outer.network("n");
    let owner = outer.container("owner", DEBIAN, &["--network", &network]);
    let shared = format!("container:{owner}");
    let circumstances: [&[&str]; 7] = [
        &[],
        &["--hostname", "someone"],
        &["--hostname", "someone", "--cgroupns", "private"],
        &["--network", "host"],
        &["--network", "host", "--cgroupns", "private"],
        // Its host name, and the file at /etc/hostname, are the owner's.
        &["--network", &shared],
        &["--network", &shared, "--cgroupns", "private"],
    ];
    for (number, settings) in circumstances.iter().enumerate() {
        let name = outer.container(&format!("c{number}"), OTHER, settings);
        let answer = outer.client(&name).ask("parent");
        assert_eq!(answer, format!("ok {name}"), "{settings:?}");
    }
    assert_eq!(outer.client(&owner).ask("parent"), format!("ok {owner}"));
}

fn parent_of_a_client_with_the_host_name_of_a_container_is_not_that_one(engine: &Engine) {
    let mut outer = Outer::new(engine);
    let victim = outer.container("victim", DEBIAN, &[]);
    let id = engine.run(&["inspect", "-f", "{{.Id}}", &victim]);
    let thief = outer.container(
        "thief",
        OTHER,
        &["--hostname", &id[..12], "--cgroupns", "private"],
    );
    assert_eq!(outer.client(&thief).ask("parent"), format!("ok {thief}"));
}

/// The test itself runs outside of the engine's containers.
fn parent_of_a_client_outside_is_none_whatever_its_host_name(engine: &Engine) {
    let mut outer = Outer::new(engine);
    let container = outer.container("c", DEBIAN, &[]);
    let id = engine.run(&["inspect", "-f", "{{.Id}}", &container]);
    for name in [&id[..12], &container] {
        let setup = format!("echo {name} > /proc/sys/kernel/hostname");
        let client = Worker::try_start_in(engine.place.path(), &["--uts"], &setup);
        assert_eq!(client.unwrap().ask("parent"), "ok none", "{name}");
    }
}

/// Networks of a container's, and the id of its image.
fn has(engine: &Engine, container: &str) -> (Vec<String>, String) {
    let names = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let names = engine.run(&["inspect", "-f", names, container]);
    let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    names.sort();
    let image = engine.run(&["inspect", "-f", "{{.Image}}", container]);
    (names, image)
}

fn session_of_a_nested_client_has_the_networks_and_the_image_of_its_container(engine: &Engine) {
    let mut outer = Outer::new(engine);
    let (z, a) = (outer.network("z"), outer.network("a"));
    let container = outer.container("outer", OTHER, &["--network", &z]);
    engine.run(&["network", "connect", &a, &container]);
    let mut client = outer.client(&container);
    assert_eq!(client.ask("inherit"), "ok created");
    let [session] = engine.containers().try_into().unwrap();
    let expected = (vec![a.clone(), z.clone()], has(engine, &container).1);
    assert_eq!(has(engine, &container), expected);
    assert_eq!(has(engine, &session), expected);

    // The same wish finds it again, from a process that knows nothing of the first.
    assert_eq!(outer.client(&container).ask("inherit"), "ok reconnected");
    // It is what it was made from for a client elsewhere, too.
    let stored = run(async {
        let session = engine
            .podkit()
            .await
            .open(&podkit::SessionKey::new("u", "s").unwrap());
        let session = session.create(false).await.unwrap();
        assert_eq!(session.opened(), Opened::Reconnected);
        session.info().await.unwrap().spec
    });
    let image = stored.image.unwrap();
    assert_eq!(
        image.trim_start_matches("sha256:"),
        expected.1.trim_start_matches("sha256:")
    );
    // Docker tells which one the container was made with.
    let order = if engine.name == "docker" {
        [z, a]
    } else {
        [a, z]
    };
    assert_eq!(stored.network, Some(Network::Named(order.to_vec())));
    assert!(!stored.inherit_networks && !stored.inherit_image);
}

fn session_of_a_nested_client_that_lost_a_network_is_a_conflict(engine: &Engine) {
    let mut outer = Outer::new(engine);
    let (a, b) = (outer.network("a"), outer.network("b"));
    let container = outer.container("outer", DEBIAN, &["--network", &a]);
    engine.run(&["network", "connect", &b, &container]);
    let mut client = outer.client(&container);
    assert_eq!(client.ask("inherit"), "ok created");
    engine.run(&["network", "disconnect", &b, &container]);
    let answer = client.ask("inherit");
    assert!(answer.starts_with("error conflict"), "{answer}");
    assert!(answer.contains("`network`"), "{answer}");
    // Without any there is nothing to inherit, and nothing is taken in its place.
    engine.run(&["network", "disconnect", &a, &container]);
    let answer = client.ask("inherit");
    assert!(answer.starts_with("error invalid_input"), "{answer}");
    assert!(answer.contains("no network with a name"), "{answer}");
}
