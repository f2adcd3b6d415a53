{{ complete_days('inventory') }}
