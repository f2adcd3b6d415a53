"""What Dagster's UI shows of a check: the partitions of each status, from the instance's storage."""

import dagster as dg


def check_states(instance: dg.DagsterInstance, asset: str, check: str, partitions: dg.PartitionsDefinition) -> dict:
    """Status -> the partitions whose latest result it is."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    state = instance.event_log_storage.get_asset_check_state([(key, partitions)])[key]
    found = {status.value: set(subset.subset_value.get_partition_keys()) for status, subset in state.subsets.items()}
    return {status: keys for status, keys in found.items() if keys}
