//! The client: so many tasks, each of which has one session after the other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podkit::{
    AuditLog, HealthOptions, Limit, LimitChange, Outcome, Podkit, Port, Session, SessionKey,
    SessionSpec,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{DOCKER_IMAGE, client, number, say};

/// What the client is told on its command line.
#[derive(Clone, Debug)]
struct Order {
    backend: String,
    place: PathBuf,
    prefix: String,
    /// Lives of each task.
    lives: usize,
    alive: usize,
    looks: usize,
}

impl Order {
    fn parse(words: &[String]) -> Result<Self, String> {
        let [backend, place, prefix, total, alive, looks] = words else {
            return Err("a client is started by the soak test alone".to_owned());
        };
        let (total, alive): (usize, usize) = (number("total", total)?, number("alive", alive)?);
        Ok(Self {
            backend: backend.clone(),
            place: PathBuf::from(place),
            prefix: prefix.clone(),
            lives: total.div_ceil(alive.max(1)),
            alive,
            looks: number("looks", looks)?,
        })
    }

    /// Whether the client rests in this life of each task's, and the number of the point.
    fn point(&self, life: usize) -> Option<usize> {
        (1..=self.looks).find(|point| point * self.lives / self.looks == life + 1)
    }

    fn tree(&self) -> PathBuf {
        self.place.join("tree")
    }
}

/// A client process.
pub(crate) fn main(words: &[String]) -> Result<(), String> {
    let order = Order::parse(words)?;
    client::run(serve(order))
}

async fn serve(order: Order) -> Result<(), String> {
    make_tree(&order.tree()).map_err(|error| format!("the tree: {error}"))?;
    let podkit = client::builder(&order.backend, &order.place, &order.prefix)
        .map_err(|error| error.to_string())?
        .health(HealthOptions::new())
        .audit(AuditLog::new(std::io::sink()))
        .build()
        .await
        .map_err(|error| format!("cannot connect to {}: {error:?}", order.backend))?;
    // One who does not look: what is told waits, in bounds.
    let _events = podkit.events();
    say("hello");
    let (go, _) = watch::channel(0);
    let (arrive, mut arrived) = mpsc::channel(order.alive);
    let order = Arc::new(order);
    let mut tasks = JoinSet::new();
    for task in 0..order.alive {
        let (podkit, order) = (podkit.clone(), Arc::clone(&order));
        tasks.spawn(live(podkit, order, task, arrive.clone(), go.subscribe()));
    }
    drop(arrive);
    let mut commands = client::commands();
    let mut resting = 0;
    for point in 1..=order.looks {
        while resting < order.alive {
            tokio::select! {
                Some(()) = arrived.recv() => resting += 1,
                Some(ended) = tasks.join_next() => {
                    let ended = ended.map_err(|error| format!("a task panicked: {error}"))?;
                    ended?;
                    return Err("a task ended early".to_owned());
                }
            }
        }
        resting = 0;
        say(&format!(
            "quiet {}",
            point * order.lives / order.looks * order.alive
        ));
        loop {
            match commands.recv().await.as_deref() {
                Some("tasks") => {
                    let alive = Handle::current().metrics().num_alive_tasks();
                    say(&format!("tasks {alive}"));
                }
                Some("go" | "finish") => break,
                other => return Err(format!("the parent said {other:?}")),
            }
        }
        go.send_replace(point);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| format!("a task panicked: {error}"))??;
    }
    let left = podkit.list().await.map_err(|error| error.to_string())?;
    podkit.shutdown().await;
    if !left.is_empty() {
        return Err(format!("sessions are left: {left:?}"));
    }
    say("bye all sessions were closed");
    Ok(())
}

fn make_tree(top: &Path) -> std::io::Result<()> {
    for part in ["a", "b/c"] {
        std::fs::create_dir_all(top.join(part))?;
        std::fs::write(top.join(part).join("file"), vec![7; 20_000])?;
    }
    Ok(())
}

/// One session after the other; it rests where it is told to, with its session open.
async fn live(
    podkit: Podkit,
    order: Arc<Order>,
    task: usize,
    arrive: mpsc::Sender<()>,
    mut go: watch::Receiver<usize>,
) -> Result<(), String> {
    for life in 0..order.lives {
        let number = life * order.alive + task;
        let failed = |error: podkit::Error| format!("session {number}: {error:?}");
        let session = Box::pin(open_and_use(&podkit, &order, task, number));
        let session = session.await.map_err(failed)?;
        if let Some(point) = order.point(life) {
            let _ = arrive.send(()).await;
            let _ = go.wait_for(|reached| *reached >= point).await;
        }
        let report = session.close().await.map_err(failed)?;
        if !report.existed || !report.failed.is_empty() {
            return Err(format!("session {number}: {report:?}"));
        }
    }
    Ok(())
}

/// Uses a session in the way of its task, so that at each point the same is there.
async fn open_and_use(
    podkit: &Podkit,
    order: &Order,
    task: usize,
    number: usize,
) -> podkit::Result<Session> {
    let key = SessionKey::new(format!("user{}", task % 7), format!("s{number}"))?;
    // It rests for as long as the parent wants to look.
    let mut spec = SessionSpec::new().auto_stop(Limit::Off);
    if order.backend == "docker" {
        spec = spec.image(DOCKER_IMAGE);
    }
    if task % 10 == 1 {
        spec = spec.port(Port::parse("0:8000")?);
    }
    let session = podkit.open(&key).spec(spec).await?;
    echo(&session, number).await?;
    match task % 10 {
        0 => {
            session.files().write("a/b", vec![1; 30_000]).await?;
            session.files().append("a/b", "x").await?;
            session.files().rename("a/b", "a/c").await?;
            session.files().read("a/c").await?;
        }
        1 => {
            session.spawn(["sleep", "1000"]).name("job").await?;
        }
        2 => {
            session.stop(Duration::ZERO).await?;
            echo(&session, number).await?;
        }
        3 => {
            let (up, down) = (order.tree(), order.place.join(format!("down{task}")));
            let sent = session.files().upload(up, "tree").await?.check()?;
            let came = session.files().download("tree", &down).await?.check()?;
            assert_eq!(sent.bytes, came.bytes, "a tree that came back");
            let _ = std::fs::remove_dir_all(down);
        }
        4 => drop(session.exec(["sleep", "1000"]).stream().await?),
        5 => {
            let mut watch = session.files().watch("/workspace", true).await?;
            session.files().write("seen", "x").await?;
            assert!(watch.next().await.transpose()?.is_some(), "a change");
        }
        6 if podkit.capabilities().pause => {
            session.pause().await?;
            echo(&session, number).await?;
        }
        7 => {
            let change = LimitChange::new().pids_max(300);
            if podkit.capabilities().live_limits {
                session.set_limits(change).await?;
                session.stats().await?;
            }
        }
        8 => {
            let late = session.exec(["sleep", "1000"]);
            let late = late.timeout(Duration::from_millis(20)).await?;
            assert_eq!(late.outcome, Outcome::TimedOut, "a late command");
        }
        // Somebody kills it, and it comes back.
        9 => {
            podkit.containers().remove(session.container()).await?;
            echo(&session, number).await?;
        }
        _ => {}
    }
    echo(&session, number).await?;
    Ok(session)
}

async fn echo(session: &Session, number: usize) -> podkit::Result<()> {
    let output = session
        .exec(["echo".to_owned(), number.to_string()])
        .await?;
    assert_eq!(output.stdout, format!("{number}\n").into_bytes(), "an echo");
    Ok(())
}
