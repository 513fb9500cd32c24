"""Integrations with schedulers and event sources: Airflow, Dagster, bucket events. All build on `producer.client`.

    airflow     operator and trigger        pip install 'maskmill[airflow]'
    dagster     resource                    pip install 'maskmill[dagster]'
    s3_events   notification -> submission  no extra package

No other module imports these, so their packages are needed only where they are used.
"""
