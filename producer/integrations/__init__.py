"""Where maskmill meets what schedules it: Airflow, Dagster, events of a bucket. All of them on `producer.client`.

    airflow     operator and trigger        pip install 'maskmill[airflow]'
    dagster     resource                    pip install 'maskmill[dagster]'
    s3_events   notification -> submission  needs nothing more

Nothing of ours imports these modules, so their packages are needed by those who use them only.
"""
