{{ complete_days('reclaimable') }}
