{{ complete_days('image_usage') }}
