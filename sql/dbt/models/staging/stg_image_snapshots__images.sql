{{ complete_days('images') }}
