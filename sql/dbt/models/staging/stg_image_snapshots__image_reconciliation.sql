{{ complete_days('image_reconciliation') }}
