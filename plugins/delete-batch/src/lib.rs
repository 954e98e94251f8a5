//! The sample plugin `delete-batch` as a component: translates between the contract and the logic in `batches`.

pub mod batches;

#[cfg(target_family = "wasm")]
mod component {
    use crate::batches::{Batches, Settings};

    wit_bindgen::generate!({
        path: "wit",
        world: "sample:delete-batch/delete-batch",
        generate_all,
    });

    use exports::pawl::worker::handler::{Continuation, Failure, Guest, Message, Outcome, Progress, Retry};
    use wasi::config::store;

    struct DeleteBatch;

    impl Guest for DeleteBatch {
        fn handle(message: Message, progress: Progress) -> Result<Outcome, Failure> {
            let settings = Settings::read(|key| store::get(key).map_err(|e| format!("{e:?}")))
                .map_err(|reason| Failure::Transient(Retry { reason, after_ms: None }))?;
            let mut batches = match &progress.state {
                Some(state) => Batches::resume(state),
                None => Batches::begin(message.value.as_deref()),
            }
            .map_err(Failure::Permanent)?;

            let deleted = batches.delete_next(settings.batch, &progress.step_key);
            println!("{}", batches.log_line(&deleted));

            if batches.remaining() == 0 {
                return Ok(Outcome::Done(Vec::new()));
            }
            Ok(Outcome::Again(Continuation {
                state: Some(batches.state()),
                delay_ms: settings.delay_ms,
                events: Vec::new(),
            }))
        }
    }

    export!(DeleteBatch);
}
