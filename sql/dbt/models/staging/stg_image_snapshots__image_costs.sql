{{ complete_days('image_costs') }}
