{{ complete_days('image_values') }}
