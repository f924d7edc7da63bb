//! `podkit run`.

use podkit::Image;

use super::{Context, exec};
use crate::{
    args::RunArgs,
    output::{Exit, Failure},
    pump,
    signals::Signals,
};

/// Runs a command in a container of its own, which is removed whatever happens.
pub(super) async fn run(context: &Context, args: RunArgs) -> Result<Exit, Failure> {
    Image::parse(&args.image).map_err(Failure::usage)?;
    let request = exec::request(&args.command)?;
    let spec = args.spec.spec().map_err(Failure::usage)?.image(&args.image);
    let mut signals = Signals::listen()?;
    let podkit = pump::unless_signalled(&mut signals, context.podkit()).await?;
    // The result of the command passes through here, because the scope's own is the library's.
    let mut ended = None;
    let quiet = args.command.quiet;
    let closed = podkit
        .scoped(spec, async |session| {
            ended = Some(exec::attend(context, session, request, quiet, &mut signals).await);
            Ok(())
        })
        .await;
    match (ended, closed) {
        (None, Err(error)) => Err(error.into()),
        (Some(result), Ok(())) => result,
        (Some(result), Err(error)) => {
            context.output.warning(&error);
            result
        }
        (None, Ok(())) => Ok(Exit::Podkit),
    }
}
