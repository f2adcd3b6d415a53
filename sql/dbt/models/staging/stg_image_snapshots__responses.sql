{{ complete_days('responses') }}
