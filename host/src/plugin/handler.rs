//! The one function that a component is called for: its type is checked when the component is loaded, not in each call.

use super::bindings::{HANDLER, HANDLER_VERSION, wit};
use super::capabilities::State;
use super::error::LoadError;
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, Func, InstancePre, TypedFunc};

type Parameters<'a> = (&'a wit::Message, &'a wit::Progress);
type Results = (Result<wit::Outcome, wit::Failure>,);

/// A component that can be instantiated, and where its `handle` is.
pub(super) struct Handler {
    pre: InstancePre<State>,
    handle: ComponentExportIndex,
}

impl Handler {
    /// The component must export the interface.
    pub(super) fn new(pre: InstancePre<State>) -> Result<Handler, LoadError> {
        let component = pre.component();
        let handler = format!("{HANDLER}@{HANDLER_VERSION}");
        let found = component
            .get_export_index(None, &handler)
            .and_then(|instance| component.get_export(Some(&instance), "handle"));
        let Some((ComponentItem::ComponentFunc(ty), handle)) = found else {
            return Err(LoadError::Unfit(vec![format!("its {handler} has no function `handle`")]));
        };
        ty.typecheck::<Parameters<'_>, Results>(&pre.instance_type())
            .map_err(|e| LoadError::Unfit(vec![format!("`handle` of its {handler} is of another type: {e:#}")]))?;
        Ok(Handler { pre, handle })
    }

    pub(super) fn component(&self) -> &Component {
        self.pre.component()
    }

    /// Makes an instance.
    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let handle = instance.get_func(&mut *store, self.handle);
        Ok(Instance(handle.ok_or_else(|| wasmtime::Error::msg("`handle` is no function of the component"))?))
    }
}

/// An instance in a store, which must be the one that it was made in.
pub(super) struct Instance(Func);

impl Instance {
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        message: &wit::Message,
        progress: &wit::Progress,
    ) -> wasmtime::Result<Result<wit::Outcome, wit::Failure>> {
        // SAFETY: the function comes from `Handler::instantiate`, and `Handler::new` saw that what its component exports under that
        // index is of this type. Comparing it again takes a twentieth of a small call.
        #[allow(unsafe_code)]
        let handle = unsafe { TypedFunc::<Parameters<'_>, Results>::new_unchecked(self.0) };
        let (result,) = handle.call_async(store, (message, progress)).await?;
        Ok(result)
    }
}
